"""How labels become rows: the form of the rows, the pairs that are taken and the thresholds."""

from dataclasses import dataclass
from typing import Literal, get_args

from tureen.errors import InvalidRequest

Form = Literal["full", "ranking", "trl", "trl-implicit", "trl-text", "text-score", "rewardbench"]


Ties = Literal["keep", "drop", "mark"]


Pairing = Literal["best-worst", "best-each", "best-random", "all"]


FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Recipe:
    """How labels become rows.

    Attributes:
        form: the form of the rows.
        pairs: which pairs of an item's candidates are taken, in forms of pairs: the best with the worst, with each
            other one or with a random other one, or every one with every worse one.
        ties: whether a tie is a row like any other, no row, or a row with ``tie`` set to true.
        tie_margin: two candidates tie when their rewards differ by no more.
        min_margin: pairs with a smaller difference of rewards are left out.
        min_probability: so are pairs of which the model is less sure.
        seed: of ``best-random``.

    In forms that hold all of an item's candidates, best and worst decide for the item.
    """

    form: Form = "full"
    pairs: Pairing = "best-worst"
    ties: Ties = "keep"
    tie_margin: float = 0.0
    min_margin: float = 0.0
    min_probability: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("tie_margin", self.tie_margin, float("inf")),
            ("min_margin", self.min_margin, float("inf")),
            ("min_probability", self.min_probability, 1.0),
        ):
            if not 0 <= value <= most or value == float("inf"):
                raise InvalidRequest(f"{name} is {value:g}; give 0 to {most:g}", param=name)
        if self.form not in PAIRED and self.pairs != "best-worst":
            raise InvalidRequest(f"{self.form} has no pairs; leave pairs={self.pairs} out", param="pairs")

    @property
    def matrix(self) -> bool:
        """Whether the labels need the probability of every pair."""
        return self.pairs != "best-worst"


PAIRED = ("trl", "trl-implicit", "trl-text", "rewardbench")
