"""The counts of a labelling."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """The counts of a file's items and rows.

    Attributes:
        read: the items that were read.
        labelled: those that have a label.
        failed: those that cannot be labelled; each is a line of the error file.
        rows: rows written.
        ties: pairs of which neither is preferred, of forms without pairs the items whose best and worst tie.
        dropped: rows that were left out as asked, by reason.
        prompt_tokens: tokens read.
        fingerprint: the reward models that labelled all of them.
        preferences: the weights as applied.
        columns: of preference data: for each column that is not the form's own, the items by its treatment.
    """

    read: int = 0
    labelled: int = 0
    failed: int = 0
    rows: int = 0
    ties: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    fingerprint: dict[str, str] = field(default_factory=dict)
    preferences: dict[str, float] = field(default_factory=dict)
    columns: dict[str, dict[str, int]] = field(default_factory=dict)
