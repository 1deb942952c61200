"""Labels a file of answers by a judge (``tureen-train judge annotate``)."""

from pathlib import Path

import typer

from tureen.records.reading import Reading
from tureen_train.judge.configuration import read_configuration
from tureen_train.judge.judging_tasks import JudgingTask, allow_cost, judge_tasks, tell_outcome
from tureen_train.judge.label_files import LabelForm, write_labels
from tureen_train.judge.options import JudgeChoice, Spending
from tureen_train.judge.pairs import label_pairs, make_unlabelled_pairs
from tureen_train.judge.win_rates import count_wins


def annotate_file(
    reading: Reading, target: Path, choice: JudgeChoice, config: str | None, form: LabelForm, spending: Spending
) -> bool:
    """Label all pairs of answers, and write them. Nothing is written if too many replies have no verdict.

    Returns:
        Whether all requests were answered.

    Raises:
        DataError: the file cannot be read, or the form cannot write a pair.
        RecipeError: there is no such configuration.
        UnparsedReplies: too many replies have no verdict.
    """
    judge = choice.open_with(config, "annotate", target.with_name(f"{target.name}.judgements.jsonl"))
    pairs = make_unlabelled_pairs(reading, judge.reads_tools)
    tasks = [JudgingTask(judge, pairs.records)]
    for line in reading.report.lines():
        typer.echo(line, err=True)
    if not allow_cost(tasks, spending):
        return True
    (judged,) = judge_tasks(tasks)
    labelled = label_pairs(pairs, judged)
    for reason, count in labelled.left_out.items():
        typer.echo(f"left out, {reason}: {count}", err=True)
    typer.echo(f"pairs whose label now contradicts their file: {labelled.turned}", err=True)
    whole = tell_outcome(tasks, spending)
    tally = count_wins(judged)
    typer.echo(f"the first answer is better: {tally.wins}, the second: {tally.losses}, ties: {tally.ties}")
    pole = read_configuration(config, "annotate").pole if config else ""
    count = write_labels(labelled, target, form, pole, judge.name)
    typer.echo(f"wrote {count} pairs to {target}")
    return whole
