"""Make rows of preference data from a prompt's labelled candidates. Pure.

The forms are those that trainers read:

    full          the label as the server gave it, every candidate's scores with it
    ranking       the order only, best first
    trl           ``prompt``, ``chosen``, ``rejected`` as message lists: TRL's conversational preference format
    trl-implicit  ``chosen`` and ``rejected`` as whole conversations, the prompt inside both
    trl-text      the same three as strings, in hh-rlhf's style: TRL's standard format
    text-score    ``text`` of N dialogues, best first, and their ``score`` (DSP, arXiv 2309.03126)
    rewardbench   the columns of allenai/reward-bench, for prompts of one user turn

Each row of a form has the same columns. A form of pairs gives one row a pair, the others one an item.
"""

from collections import Counter
from dataclasses import dataclass, field

from tureen.errors import Unprocessable
from tureen.labelling.items import Item
from tureen.labelling.pairs import Pair, choose_pairs
from tureen.labelling.recipe import Recipe
from tureen.labelling.row_forms import WRITERS, Row
from tureen.wire import Label


@dataclass
class ItemRows:
    """The rows of an item, the number of ties, and the number of rows left out by reason."""

    rows: list[Row] = field(default_factory=list)
    ties: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def make_rows(identifier: str, item: Item, label: Label, recipe: Recipe) -> ItemRows:
    """Make the rows of an item from its label.

    Args:
        identifier: the rows' ``id``; where an item can make several, each has its places added: ``7/2-0``.
        item: the labelled item.
        label: without an error, of format ``full``, with its matrix where ``recipe.matrix``.
        recipe: how.

    Raises:
        Unprocessable: the form cannot say what the item says, or a margin is asked of a reward without a calibration.
        ServerFault: the label lacks what a label has.
    """
    _check_margins(label, recipe)
    done = ItemRows()
    for pair in choose_pairs(identifier, label, recipe):
        tie = pair.tied(recipe.tie_margin)
        done.ties += tie
        if reason := _reason(pair, tie, recipe):
            done.dropped[reason] += 1
            continue
        name = f"{identifier}/{pair.chosen}-{pair.rejected}" if recipe.pairs in ("best-each", "all") else identifier
        row = {"id": name, **WRITERS[recipe.form](item, label, pair)}
        done.rows.append({**row, "tie": tie} if recipe.ties == "mark" else row)
    return done


def _check_margins(label: Label, recipe: Recipe) -> None:
    """Refuse least margins for a reward without a calibration: its margins have no known unit."""
    asked = [name for name in ("tie_margin", "min_margin") if getattr(recipe, name)]
    if asked and label.candidates and label.calibrated is False:
        names = ", ".join(
            name for name, score in (label.candidates[0].scores or {}).items() if score.calibrated is None
        )
        message = f"{names} has no calibration, so a margin in deviations is not defined for it"
        raise Unprocessable(f"{message}: leave {asked[0]} out, or use min_probability", param=asked[0])


def _reason(pair: Pair, tie: bool, recipe: Recipe) -> str | None:
    """Return the reason why a pair is left out, or None."""
    if tie and recipe.ties == "drop":
        return "tie"
    if pair.margin < recipe.min_margin:
        return "margin below the least"
    if pair.probability < recipe.min_probability:
        return "probability below the least"
    return None
