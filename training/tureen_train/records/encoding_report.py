"""What became of records when they were encoded, and the errors of data that leave nothing to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tureen_train.config import RecipeError

EQUAL = "equal after the cut"


@dataclass(frozen=True)
class EncodingReport:
    """Counts of one file's encoded records.

    Attributes:
        unit: what is counted, in the plural: ``pairs`` or ``answers``.
        kept: how many of them can be learnt from.
        left_out: how many cannot, by reason.
        truncated: the number of texts that were cut to the recipe's ``max_length``.
        needs: what a record must have to be learnt from, for the error.
    """

    unit: str
    kept: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    truncated: int = 0
    needs: str = "two answers with different scores"

    @property
    def lost(self) -> int:
        """How many are left out, for any reason."""
        return sum(self.left_out.values())

    @property
    def reasons(self) -> str:
        """The reasons with their counts."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)

    @property
    def counts(self) -> dict[str, object]:
        """The counts as ``account.json`` keeps them."""
        left_out = {reason: count for reason, count in self.left_out.items() if count}
        return {"unit": self.unit, "kept": self.kept, "left_out": left_out, "truncated": self.truncated}


def check_training_data(report: EncodingReport, most_dropped: float) -> None:
    """Refuse training records that leave nothing to learn from, or of which too many are left out.

    Args:
        report: of the training records.
        most_dropped: the largest share that may be left out, ``data.most_dropped``.

    Raises:
        RecipeError: nothing is left, or more than this share is left out.
    """
    unit, lost, total = report.unit, report.lost, report.kept + report.lost
    cut = report.left_out.get(EQUAL, 0)
    advice = "; raise max_length, or cut on the other side (reading.truncation)" if cut else ""
    if not total:
        raise RecipeError(
            f"data.train: no record has {report.needs}, so there is nothing to train on; look at the scores, and name "
            "the preferred domain of answers by domain in data.train.0.domain"
        )
    if not report.kept:
        raise RecipeError(f"data.train: of {total} {unit} none is left to train on: {report.reasons}{advice}")
    if lost > most_dropped * total:
        raise RecipeError(
            f"data.train: {lost} of {total} {unit} are left out ({report.reasons}), more than the share of "
            f"{most_dropped:g} that data.most_dropped allows{advice}; or raise data.most_dropped"
        )
