"""Pairs with the judges that read them: what all of it costs, whether to go on, and the judgements."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from tureen.records.schema import BadOption, Record
from tureen_train.judge.comparisons import Judge, Judgement, make_comparison
from tureen_train.judge.configuration import Price
from tureen_train.judge.costs import (
    CountTokens,
    JudgeCost,
    Spent,
    open_token_counter,
    parse_price,
    sum_costs,
    sum_spent,
)
from tureen_train.judge.language_judge import LanguageJudge
from tureen_train.judge.options import Spending
from tureen_train.terminal import show_progress

EXAMPLE = 200  # characters of a reply that is shown


@dataclass(frozen=True)
class JudgingTask:
    """Pairs, each a record of two answers, and who judges them."""

    judge: Judge
    records: Sequence[Record]


def allow_cost(tasks: Sequence[JudgingTask], spending: Spending) -> bool:
    """Tell what judging costs, and return whether to go on. Judges that cost nothing are not asked about.

    Raises:
        BadOption: there is nobody to ask, because standard input is no terminal; or the price is not written as it
            should be.
        BaseError: the tokenizer is missing.
    """
    price = find_price(tasks, spending)
    cost = _estimate_all(tasks, open_token_counter(spending.tokenizer))
    if cost is None:
        typer.echo("requests to a language model: 0", err=True)
        return not spending.dry
    typer.echo(cost.describe(price), err=True)
    if spending.dry or spending.yes or not cost.requests:
        return not spending.dry
    if not sys.stdin.isatty():
        raise BadOption("this costs requests to the judge: add --yes to go on, or --dry-run to see only the estimate")
    return typer.confirm("Go on?", err=True)


def find_price(tasks: Sequence[JudgingTask], spending: Spending) -> Price | None:
    """The price that the user gives, else that of the first configuration with one."""
    if spending.price is not None:
        return parse_price(spending.price)
    prices = (task.judge.configuration.price for task in tasks if isinstance(task.judge, LanguageJudge))
    return next(filter(None, prices), None)


def _estimate_all(tasks: Sequence[JudgingTask], count: CountTokens) -> JudgeCost | None:
    costs = [
        task.judge.estimate_cost([make_comparison(record) for record in task.records], count)
        for task in tasks
        if isinstance(task.judge, LanguageJudge)
    ]
    return sum_costs(costs) if costs else None


def judge_tasks(tasks: Sequence[JudgingTask]) -> list[list[Judgement]]:
    """Judge the pairs of all tasks, with a progress bar.

    Raises:
        ServerRefusal: a server refuses what every request asks for.
        UnparsedReplies: too many replies have no verdict.
    """
    with show_progress(transient=True) as progress:
        bar = progress.add_task("judging", total=sum(len(task.records) for task in tasks))
        return [task.judge.judge_pairs(task.records, lambda done: progress.advance(bar, done)) for task in tasks]


def tell_outcome(tasks: Sequence[JudgingTask], spending: Spending) -> bool:
    """Tell what language models have said and cost. Returns whether all requests were answered."""
    judges = [task.judge for task in tasks if isinstance(task.judge, LanguageJudge)]
    if not judges:
        return True
    counts = sum((judge.counts for judge in judges), Counter[str]())
    for what, number in counts.items():
        typer.echo(f"{what}: {number}", err=True)
    if example := next((judge.example for judge in judges if judge.example), ""):
        typer.echo(f"an answer without a verdict: {example[:EXAMPLE]!r}", err=True)
    typer.echo(count_spent(tasks).describe(find_price(tasks, spending)), err=True)
    if counts["failed"]:
        typer.echo("tureen-train: some requests failed; the same command goes on with them", err=True)
    return not counts["failed"]


def count_spent(tasks: Sequence[JudgingTask]) -> Spent:
    """Count what language models have cost."""
    return sum_spent([task.judge.spent for task in tasks if isinstance(task.judge, LanguageJudge)])
