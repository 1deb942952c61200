"""Compares methods by a judge (``tureen-train judge evaluate``): verdicts, win rates, a table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from tureen.atomic_files import replace_atomically
from tureen.records.schema import Record
from tureen_train.judge.comparisons import Judgement, write_request
from tureen_train.judge.judging_tasks import JudgingTask, allow_cost, count_spent, judge_tasks, tell_outcome
from tureen_train.judge.methods import MethodAnswers, join_methods
from tureen_train.judge.options import JudgeChoice, Spending
from tureen_train.judge.win_rates import (
    count_wins,
    estimate_decided_rate,
    estimate_method_rates,
    estimate_win_rate,
)
from tureen_train.measures.intervals import Figure, dump_figures
from tureen_train.records.writing import write_rows
from tureen_train.terminal import make_console

Pairing = tuple[str, int, int]  # criterion, and the numbers of two methods


def evaluate_files(
    records: Mapping[str, Sequence[Record]],
    out: Path,
    choice: JudgeChoice,
    configs: Sequence[str] | None,
    spending: Spending,
) -> bool:
    """Compare methods, write ``results.json`` and ``verdicts.jsonl``, and print the win rates.

    Args:
        records: each method's records.
        configs: one for each criterion; by default the judge's only one.

    Returns:
        Whether all requests were answered.

    Raises:
        BadOption: no prompt was answered by all methods.
        RecipeError: there is no such configuration.
        UnparsedReplies: too many replies have no verdict.
    """
    answers = join_methods(records)
    for reason, count in answers.left_out.items():
        typer.echo(f"left out, {reason}: {count}", err=True)
    tasks: dict[Pairing, JudgingTask] = {}
    wanted: Sequence[str | None] = configs or [None]
    for config in dict.fromkeys(wanted):
        judge = choice.open_with(config, "evaluate", out / "judgements.jsonl")
        name = config or judge.name
        tasks |= {(name, one, other): JudgingTask(judge, pairs) for one, other, pairs in answers.pair_methods()}
    if not allow_cost(list(tasks.values()), spending):
        return True
    judged = dict(zip(tasks, judge_tasks(list(tasks.values())), strict=True))
    whole = tell_outcome(list(tasks.values()), spending)
    out.mkdir(parents=True, exist_ok=True)
    write_rows(_list_verdicts(answers, judged), out / "verdicts.jsonl")
    results = summarise_methods(answers, judged)
    results["spent"] = vars(count_spent(list(tasks.values())))
    with replace_atomically(out / "results.json") as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for table in _make_tables(answers, judged):
        make_console().print(table)
    typer.echo(f"the figures: {out / 'results.json'}")
    return whole


def summarise_methods(answers: MethodAnswers, judged: Mapping[Pairing, Sequence[Judgement]]) -> dict[str, Any]:
    """Compute all figures for JSON: of each pairing by each criterion, and each method's win rate."""
    pairings = [
        {
            "criterion": criterion,
            "first": answers.names[one],
            "second": answers.names[other],
            **vars(count_wins(own)),
            **dump_figures({"win_rate": estimate_win_rate(own), "decided": estimate_decided_rate(own)}),
        }
        for (criterion, one, other), own in judged.items()
    ]
    return {
        "prompts": len(answers.prompts),
        "left_out": dict(answers.left_out),
        "pairings": pairings,
        "win_rates": dump_figures(estimate_method_rates(answers.names, judged)),
    }


def _list_verdicts(answers: MethodAnswers, judged: Mapping[Pairing, Sequence[Judgement]]) -> Iterator[dict[str, Any]]:
    for (criterion, one, other), own in judged.items():
        for record, each in zip(answers.prompts, own, strict=True):
            yield {
                "criterion": criterion,
                "prompt": write_request(record.prompt),
                "first": answers.names[one],
                "second": answers.names[other],
                "share": each.share,
                "error": each.error,
            }


def _make_tables(answers: MethodAnswers, judged: Mapping[Pairing, Sequence[Judgement]]) -> Iterator[Table]:
    pairings = Table(
        "criterion", "first", "second", "wins", "ties", "losses", "no verdict", "win rate", "decided", title="pairings"
    )
    for (criterion, one, other), own in judged.items():
        tally = count_wins(own)
        numbers = (tally.wins, tally.ties, tally.losses, tally.failed)
        rates = (estimate_win_rate(own), estimate_decided_rate(own))
        pairings.add_row(
            criterion, answers.names[one], answers.names[other], *map(str, numbers), *map(format_rate, rates)
        )
    yield pairings
    rates_of = estimate_method_rates(answers.names, judged)
    methods = Table("method", "win rate", title="methods")
    for name, rate in rates_of.items():
        methods.add_row(name, format_rate(rate))
    yield methods


def format_rate(figure: Figure) -> str:
    """Format a share with its interval, as ``62.5 % [40.1, 80.0]``; a dash if it is undefined."""
    if figure.value != figure.value:
        return "–"
    told = f"{100 * figure.value:.1f} %"
    return told if figure.low != figure.low else f"{told} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
