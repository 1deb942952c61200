"""From a prompt's labelled candidates to rows of preference data. Pure.

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

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tureen.errors import InvalidRequest, ServerFault, Unprocessable
from tureen.labelling import dialogues
from tureen.labelling.items import Item
from tureen.wire import Label, Message

Form = Literal["full", "ranking", "trl", "trl-implicit", "trl-text", "text-score", "rewardbench"]
Ties = Literal["keep", "drop", "mark"]
Pairing = Literal["best-worst", "best-each", "best-random", "all"]
Row = dict[str, Any]

FORMS: tuple[Form, ...] = get_args(Form)
EVERYTHING = "all"
SURE = 1e-9


@dataclass(frozen=True)
class Recipe:
    """How labels become rows.

    Attributes:
        form: what the rows look like.
        pairs: which pairs of an item's candidates are taken, in forms of pairs: the best with the worst, with each
            other one or with a random other one, or every one with every worse one.
        ties: what becomes of a tie: a row like any other, none, or a row whose column ``tie`` says so.
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
        """Whether the order in which the two were shown decided, which makes any pair a tie."""
        return self.orders is not None and (self.orders[0] > 0.5) != (self.orders[1] > 0.5)

    def tied(self, margin: float) -> bool:
        """Whether neither is preferred."""
        return self.margin <= margin or self.undecided


@dataclass
class ItemRows:
    """The rows of an item, how many of its pairs were ties, and how many rows were left out for which reason."""

    rows: list[Row] = field(default_factory=list)
    ties: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def make_rows(identifier: str, item: Item, label: Label, recipe: Recipe) -> ItemRows:
    """The rows that an item's label makes.

    Args:
        identifier: the rows' ``id``; where an item can make several, each has its places added: ``7/2-0``.
        item: what was labelled.
        label: without an error, of format ``full``, with its matrix where ``recipe.matrix``.
        recipe: how.

    Raises:
        Unprocessable: the form cannot say what the item says.
        ServerFault: the label lacks what a label has.
    """
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


def choose_pairs(identifier: str, label: Label, recipe: Recipe) -> list[Pair]:
    """The pairs that ``recipe`` takes of a label, the best first; the same ones whenever it is asked again."""
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
    """The label's order, best first."""
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
        return Pair(chosen, rejected, _reward(label, chosen) - _reward(label, rejected), probability)
    orders = label.orders if outright else _orders(label, chosen, rejected)
    margin = label.margin if outright and label.margin is not None else _log_odds(probability)
    return Pair(chosen, rejected, margin, probability, orders)


def _orders(label: Label, chosen: int, rejected: int) -> tuple[float, float] | None:
    """How sure a comparison was with the chosen one first, and with it second."""
    found = label.order_matrix
    return (found[chosen][rejected], 1 - found[rejected][chosen]) if found else None


def _log_odds(probability: float) -> float:
    kept = min(max(probability, SURE), 1 - SURE)
    return math.log(kept / (1 - kept))


def _reason(pair: Pair, tie: bool, recipe: Recipe) -> str | None:
    """Why a pair is left out."""
    if tie and recipe.ties == "drop":
        return "tie"
    if pair.margin < recipe.min_margin:
        return "margin below the least"
    if pair.probability < recipe.min_probability:
        return "probability below the least"
    return None


def _reward(label: Label, place: int) -> float:
    reward = label.candidates[place].reward
    if reward is None:
        raise ServerFault("the label holds no reward of a candidate", code="unreadable_reply")
    return reward


# --------------------------------------------------------------------------- forms


def _full(item: Item, label: Label, pair: Pair) -> Row:  # noqa: ARG001
    return label.model_dump(exclude={"index"}, exclude_none=True)


def _ranking(item: Item, label: Label, pair: Pair) -> Row:  # noqa: ARG001
    return {"ranking": read_ranking(label)}


def _trl(item: Item, label: Label, pair: Pair) -> Row:
    prompt, answers = item.conversation()
    chosen, rejected = (_plain(answers[place]) for place in (pair.chosen, pair.rejected))
    return {"prompt": _plain(prompt), "chosen": chosen, "rejected": rejected, **_judged(label, pair)}


def _trl_implicit(item: Item, label: Label, pair: Pair) -> Row:
    prompt, answers = item.conversation()
    chosen, rejected = (_plain([*prompt, *answers[place]]) for place in (pair.chosen, pair.rejected))
    return {"chosen": chosen, "rejected": rejected, **_judged(label, pair)}


def _trl_text(item: Item, label: Label, pair: Pair) -> Row:
    prompt, answers = item.conversation()
    text, (chosen, rejected) = dialogues.write_prompt_and_answers(
        prompt, [answers[pair.chosen], answers[pair.rejected]]
    )
    return {"prompt": text, "chosen": chosen, "rejected": rejected, **_judged(label, pair)}


def _text_score(item: Item, label: Label, pair: Pair) -> Row:
    """``score`` is the reward above the worst one's, because this form takes what is below zero for padding."""
    prompt, answers = item.conversation()
    order = read_ranking(label)
    if not label.candidates:
        raise Unprocessable("a reward that compares answers gives none a score; take another form than text-score")
    rewards = [_reward(label, place) for place in order]
    scores = [label.candidates[place].scores or {} for place in order]
    return {
        "text": [dialogues.write_dialogue([*prompt, *answers[place]], dialogues.DSP) for place in order],
        "score": [reward - rewards[-1] for reward in rewards],
        "reward": rewards,
        "calibrated": {name: [each[name].calibrated for each in scores] for name in scores[0]},
        "raw": {name: [each[name].raw for each in scores] for name in scores[0]},
        "margin": pair.margin,
        "probability": pair.probability,
    }


def _rewardbench(item: Item, label: Label, pair: Pair) -> Row:
    prompt, answers = item.conversation()
    models = item.models or [f"candidate-{place}" for place in range(len(answers))]
    texts = [_alone(answers[place], "assistant") for place in (pair.chosen, pair.rejected)]
    return {
        "prompt": _alone(prompt, "user"),
        "chosen": texts[0],
        "chosen_model": models[pair.chosen],
        "rejected": texts[1],
        "rejected_model": models[pair.rejected],
        "subset": item.subset or EVERYTHING,
        **_judged(label, pair),
    }


def _alone(messages: Sequence[Message], role: str) -> str:
    if len(messages) != 1 or messages[0].role != role:
        raise Unprocessable("RewardBench has prompts of one user turn and answers of one message; take trl for others")
    return messages[0].content


def _judged(label: Label, pair: Pair) -> Row:
    row: Row = {"margin": pair.margin, "probability": pair.probability}
    if label.candidates:
        scores = {"chosen_score": _reward(label, pair.chosen), "rejected_score": _reward(label, pair.rejected)}
        row = {**scores, **row}
    return row if pair.orders is None else {**row, "orders": list(pair.orders)}


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [message.plain() for message in messages]


PAIRED = ("trl", "trl-implicit", "trl-text", "rewardbench")
WRITERS: dict[str, Callable[[Item, Label, Pair], Row]] = {
    "full": _full,
    "ranking": _ranking,
    "trl": _trl,
    "trl-implicit": _trl_implicit,
    "trl-text": _trl_text,
    "text-score": _text_score,
    "rewardbench": _rewardbench,
}
