"""Models that read two answers side by side, judged by what judges the others: of all comparisons a number an answer.

A comparison is asked in both orders, and its probability is their mean (RLHFlow, arXiv 2405.07863,
``eval_reward_bench_pm.py``). Of N answers, each gets (N − 1)/N times the log-odds of its mean probability of winning.
Of two, the numbers differ by the log-odds of the comparison; of more, they rank as the round robin does, and near ½
they are those whose differences fit the log-odds of all comparisons by least squares, which is their mean over rivals.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tureen import Client
from tureen.records.schema import BadRecord
from tureen.wire import Label
from tureen_core.calibration import compute_sigmoid
from tureen_core.inputs import render_pair
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_core.tournament import compute_log_odds, list_pairs, rank_round_robin
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.judging import estimate_pair_share, flatten_pairs
from tureen_train.evaluation.objectives import ObjectiveChoice, ScoredItem
from tureen_train.measures.intervals import Figure
from tureen_train.networks.reward_reader import Done, RewardReader

ABOUT = {"comparisons": "of all pairs of answers, each in both orders"}
TOO_LONG = "context_length_exceeded"
DIGITS = 14  # of a probability: what lies beyond is rounding, and would tell equal answers apart


@dataclass(frozen=True)
class ComparedItem(ScoredItem):
    """An item whose answers were compared.

    ``sides[i][j]`` is P(answer i over answer j) with i in the first place; ½ on the diagonal. ``truncated`` is of all
    answers where one comparison was cut.
    """

    sides: list[list[float]]


def score_comparisons(sides: list[list[float]], cut: bool) -> ComparedItem:
    """An item's answers from its comparisons, ``[N, N]``; a lone answer gets 0."""
    count = len(sides)
    standing = rank_round_robin(count, lambda i, j: (sides[i][j] + 1 - sides[j][i]) / 2)
    numbers = [(count - 1) / count * compute_log_odds(round(strength, DIGITS)) for strength in standing.strength]
    return ComparedItem(numbers, numbers, [cut] * count, sides)


def render_comparisons(renderer: Renderer, item: Item) -> list[Rendered]:
    """All comparisons of an item's answers, each in both orders; N (N − 1) texts, cut where they are too long."""
    answers = item.answers
    return [
        render_pair(renderer, item.prompt, answers[i], answers[j])
        for two in list_pairs(len(answers))
        for i, j in (two, two[::-1])
    ]


def read_sides(count: int, logits: Sequence[float]) -> list[list[float]]:
    """The probabilities ``[N, N]`` of :attr:`ComparedItem.sides`, from the log-odds of :func:`render_comparisons`."""
    sides = [[0.5] * count for _ in range(count)]
    both = zip(list_pairs(count), logits[::2], logits[1::2], strict=True)
    for (i, j), forward, backward in both:
        sides[i][j], sides[j][i] = compute_sigmoid(forward), compute_sigmoid(backward)
    return sides


# --------------------------------------------------------------------------- in process


def compare_in_process(
    reader: RewardReader,
    logit: Callable[[Sequence[float]], float],
    items: Sequence[Item],
    batch: int,
    done: Done,
) -> list[ScoredItem]:
    """Compare all answers of each item.

    Args:
        logit: the log-odds of a row of the head, with the temperature.
        batch: how many texts run together.
        done: told how many more answers are judged, in step with the texts that are read.
    """
    rendered = [render_comparisons(reader.renderer, item) for item in items]
    ids = [text.ids for each in rendered for text in each]
    rows = iter(reader.score_ids(ids, batch, _in_step(done, sum(len(item.answers) for item in items), len(ids))))
    scored: list[ScoredItem] = []
    for item, each in zip(items, rendered, strict=True):
        logits = [logit(row) for row in islice(rows, len(each))]
        scored.append(score_comparisons(read_sides(len(item.answers), logits), any(text.truncated for text in each)))
    return scored


def _in_step(done: Done, answers: int, texts: int) -> Done:
    """What is told how many more texts are read, and tells how many more answers that is."""
    read = 0

    def tell(count: int) -> None:
        nonlocal read
        done(answers * (read + count) // texts - answers * read // texts)
        read += count

    return tell


# --------------------------------------------------------------------------- over HTTP


def compares_answers(client: Client, wanted: ObjectiveChoice) -> bool:
    """Whether a server's rewards compare answers: no card says it, a label does.

    Raises:
        TureenError: the server cannot be reached, or the rewards read steps, or not all of them the same.
    """
    (label,) = _labels(client, wanted, [{"prompt": "?", "candidates": ["yes", "no"]}], truncate=True)
    return label.orders is not None


def ask_server(
    client: Client, wanted: ObjectiveChoice, items: Sequence[Item], batch: int, done: Done
) -> list[ScoredItem]:
    """Have a server compare all answers of each item.

    Args:
        batch: items in one request.
        done: told how many more answers are judged.

    Raises:
        BadRecord: the server refuses an item, or its answers are whole conversations.
    """
    scored: list[ScoredItem] = []
    for start in range(0, len(items), batch):
        some = items[start : start + batch]
        found = _asked(client, wanted, [item for item in some if len(item.answers) > 1])
        for item in some:
            scored.append(next(found) if len(item.answers) > 1 else score_comparisons([[0.5]], cut=False))
            done(len(item.answers))
    return scored


def _asked(client: Client, wanted: ObjectiveChoice, items: Sequence[Item]) -> Iterator[ScoredItem]:
    """Each item's comparisons. A label does not say that something was cut, so first nothing may be."""
    bodies = [_body(item) for item in items]
    labels = _labels(client, wanted, bodies, truncate=False)
    long = [bool(label.error and label.error.code == TOO_LONG) for label in labels]
    again = iter(_labels(client, wanted, [body for body, cut in zip(bodies, long, strict=True) if cut], truncate=True))
    for item, label, cut in zip(items, labels, long, strict=True):
        told = next(again) if cut else label
        if told.order_matrix is None:
            why = told.error.message if told.error else "its label has no probabilities of both orders"
            raise BadRecord("the server refused it", why, item.id)
        yield score_comparisons(told.order_matrix, cut)


def _body(item: Item) -> dict[str, Any]:
    if not item.prompt:
        message = "its answers are whole conversations, and a server compares answers to one prompt; name the artifact"
        raise BadRecord("no prompt", message, item.id)
    return {"prompt": list(item.prompt), "candidates": [list(answer) for answer in item.answers]}


def _labels(client: Client, wanted: ObjectiveChoice, bodies: Sequence[dict[str, Any]], truncate: bool) -> list[Label]:
    if not bodies:
        return []
    reply = client.preferences(
        bodies,
        rewards=list(wanted.weights),
        preferences=wanted.weights if wanted.weighed else None,
        matrix=True,
        truncate=truncate,
        on_error="item",
    )
    return [label for label in reply.data if isinstance(label, Label)]


# --------------------------------------------------------------------------- what is told of them


def measure_position_bias(items: Sequence[Item], scored: Sequence[ScoredItem]) -> dict[str, Figure]:
    """``flips``: the share of comparable pairs whose verdict turns with the order; nothing where none was compared."""
    sides = [each.sides for each in scored if isinstance(each, ComparedItem)]
    if not sides:
        return {}
    found = [is_flipped(matrix, i, j) for item, matrix in zip(items, sides, strict=True) for i, j in item.pairs]
    owners = flatten_pairs(items, [each.rewards for each in scored], [each.logits for each in scored])
    return {"flips": estimate_pair_share(owners, np.array(found, dtype=np.float64))}


def is_flipped(sides: Sequence[Sequence[float]], i: int, j: int) -> bool:
    """Whether the same place wins in both orders, whoever stands there."""
    return (sides[i][j] - 0.5) * (sides[j][i] - 0.5) > 0


def describe_comparisons(scored: Sequence[ScoredItem]) -> list[str]:
    """What a reader must know of numbers that come from comparisons."""
    counts = [len(each.rewards) for each in scored if isinstance(each, ComparedItem)]
    if not counts:
        return []
    found = [
        "the model compares two answers: each pair was asked in both orders, and margins are log-odds with the"
        " temperature, so that calibration with and without it is the same"
    ]
    many = sum(count > 2 for count in counts)
    if many:
        found.append(
            f"{many} of {len(counts)} items have more than two answers: these are ranked by a round robin, by their"
            " mean probability of winning, and best of N, pair accuracy and margins follow from that"
        )
    return found
