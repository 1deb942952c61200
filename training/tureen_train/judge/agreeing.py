"""Compares labels with those of judges and of other files (``tureen-train judge agree``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.records.reading import Reading
from tureen.records.schema import BadOption, Record
from tureen_train.judge.agreement import PairLabels, collect_labels, measure_label_agreement, read_verdicts
from tureen_train.judge.evaluating import format_rate
from tureen_train.judge.judging_tasks import JudgingTask, judge_tasks
from tureen_train.judge.opening import names_reward, open_free_judge
from tureen_train.measures.intervals import Figure, dump_figures


@dataclass(frozen=True)
class AgreementRow:
    """The agreement of one other source of verdicts."""

    by: str
    figures: dict[str, Figure]

    @property
    def cells(self) -> list[str]:
        """The row of the table: source, pairs, agreement, decided, kappa."""
        kappa = self.figures["kappa"]
        told = "–" if kappa.value != kappa.value else f"{kappa.value:.3f} [{kappa.low:.3f}, {kappa.high:.3f}]"
        rates = [format_rate(self.figures[name]) for name in ("agreement", "decided")]
        return [self.by, str(self.figures["agreement"].n), *rates, told]

    @property
    def plain(self) -> dict[str, Any]:
        """The row for JSON."""
        return {"by": self.by, "figures": dump_figures(self.figures)}


def compare_labels(
    records: Sequence[Record], others: Sequence[str], config: str | None, objective: str | None
) -> list[AgreementRow]:
    """Measure the agreement of labels with each of some other sources.

    Args:
        records: the labelled records.
        others: files of labels, or judges that run without cost.
        config: what those among them are asked that are policies.
        objective: the reward of those that are reward models with several.

    Raises:
        BadOption: the records have no label, or a file has labels on none of their pairs.
        DataError: a file cannot be read.
    """
    labels = collect_labels(records)
    if not labels.verdicts:
        raise BadOption("LABELS: no pair of answers has a label")
    rows = []
    for other in others:
        verdicts = (
            collect_labels(Reading(Path(other))).verdicts
            if Path(other).is_file()
            else _judge_labelled(labels, other, config, objective)
        )
        figures = measure_label_agreement(labels.verdicts, verdicts)
        if not figures["agreement"].n:
            raise BadOption(
                f"--by {other}: it has a verdict on none of the pairs; prompts and answers must be the same"
            )
        rows.append(AgreementRow(other, figures))
    return rows


def _judge_labelled(labels: PairLabels, by: str, config: str | None, objective: str | None) -> dict[Any, float]:
    reward = names_reward(by)
    judge = open_free_judge(by, None if reward else config, objective if reward else None)
    keys = list(labels.verdicts)
    (judged,) = judge_tasks([JudgingTask(judge, [labels.records[key] for key in keys])])
    return read_verdicts(keys, judged)
