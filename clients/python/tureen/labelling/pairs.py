"""Choose the pairs of an item's candidates that become rows, with their margins and probabilities."""

import math
import random
from dataclasses import dataclass

from tureen.errors import ServerFault
from tureen.labelling.recipe import Recipe
from tureen.wire import Label

SURE = 1e-9


@dataclass(frozen=True)
class Pair:
    """Two candidates by their places, the preferred one first.

    Attributes:
        margin: the one's weighted reward minus the other's; the log-odds of ``probability`` where answers are compared.
        probability: that the first is preferred; the mean of ``orders`` where there are any.
        orders: P(chosen preferred) with it shown first, and with it shown second. Only a model that reads both
            answers at once has an order; of rewards this is None.
    """

    chosen: int
    rejected: int
    margin: float
    probability: float
    orders: tuple[float, float] | None = None

    @property
    def undecided(self) -> bool:
        """Whether the two orders give different winners. Such a pair is a tie."""
        return self.orders is not None and (self.orders[0] > 0.5) != (self.orders[1] > 0.5)

    def tied(self, margin: float) -> bool:
        """Whether neither is preferred."""
        return self.margin <= margin or self.undecided


def choose_pairs(identifier: str, label: Label, recipe: Recipe) -> list[Pair]:
    """Choose a label's pairs by the recipe, the best first. The choice is deterministic."""
    order = read_ranking(label)
    best, others = order[0], order[1:]
    if recipe.pairs == "best-worst":
        return [_pair(label, best, others[-1])]
    if recipe.pairs == "best-each":
        return [_pair(label, best, other) for other in others]
    if recipe.pairs == "best-random":
        return [_pair(label, best, random.Random(f"{recipe.seed}/{identifier}").choice(others))]
    return [_pair(label, one, other) for place, one in enumerate(order) for other in order[place + 1 :]]


def read_ranking(label: Label) -> list[int]:
    """Read the label's ranking, best first."""
    order = label.ranking or []
    if not order or sorted(order) != list(range(len(order))) or len(label.candidates) not in (0, len(order)):
        raise ServerFault("the label holds no order of all candidates", code="unreadable_reply")
    return order


def _pair(label: Label, chosen: int, rejected: int) -> Pair:
    outright = (chosen, rejected) == (label.chosen, label.rejected)
    probability = label.probability if outright else label.matrix[chosen][rejected] if label.matrix else None
    if probability is None:
        raise ServerFault("the label holds no probability of a pair", code="unreadable_reply")
    if label.candidates:
        return Pair(chosen, rejected, read_reward(label, chosen) - read_reward(label, rejected), probability)
    orders = label.orders if outright else _orders(label, chosen, rejected)
    margin = label.margin if outright and label.margin is not None else _log_odds(probability)
    return Pair(chosen, rejected, margin, probability, orders)


def _orders(label: Label, chosen: int, rejected: int) -> tuple[float, float] | None:
    """Read P(chosen preferred) with the chosen one shown first, and shown second."""
    found = label.order_matrix
    return (found[chosen][rejected], 1 - found[rejected][chosen]) if found else None


def _log_odds(probability: float) -> float:
    kept = min(max(probability, SURE), 1 - SURE)
    return math.log(kept / (1 - kept))


def read_reward(label: Label, place: int) -> float:
    reward = label.candidates[place].reward
    if reward is None:
        raise ServerFault("the label holds no reward of a candidate", code="unreadable_reply")
    return reward
