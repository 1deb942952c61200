"""Evaluation of pairwise models: one reward for each answer, computed from comparisons of all pairs of answers.

So pairwise models get the same figures as other reward models. Each pair is compared in both orders, and its
probability is the mean of the two (RLHFlow, arXiv 2405.07863, ``eval_reward_bench_pm.py``). Each of N answers gets the
reward (N − 1)/N · log-odds of its mean probability of winning. The rewards of two answers differ by the log-odds of
their comparison. The rewards of more answers rank them as a round robin does; if all probabilities are near ½, the
differences of rewards are the least-squares fit to the log-odds of all comparisons.
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
from tureen_core.chat_template import make_template_inputs
from tureen_core.pair_texts import render_pair
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_core.tournament import compute_log_odds, list_pairs, rank_round_robin
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.judging import estimate_pair_share, flatten_pairs
from tureen_train.evaluation.objectives import ObjectiveChoice, ScoredItem
from tureen_train.judge.model_judges import CONTEXT_EXCEEDED
from tureen_train.measures.intervals import Figure
from tureen_train.networks.reward_reader import Done, RewardReader, spread_progress
from tureen_train.records.rendering import locate_refusals

ABOUT = {"comparisons": "of all pairs of answers, each in both orders"}
DIGITS = 14  # further digits of a probability are rounding errors, by which equal answers would differ


@dataclass(frozen=True)
class ComparedItem(ScoredItem):
    """An item whose answers were compared.

    Attributes:
        sides: ``[N, N]``; ``sides[i][j]`` is P(answer i over answer j) with answer i in the first place; ½ on the
            diagonal.
        truncated: true for all answers if the text of one comparison was cut.
    """

    sides: list[list[float]]


def score_comparisons(sides: list[list[float]], cut: bool) -> ComparedItem:
    """Compute the rewards of an item's answers from ``sides [N, N]``. A single answer gets 0."""
    count = len(sides)
    standing = rank_round_robin(count, lambda i, j: (sides[i][j] + 1 - sides[j][i]) / 2)
    numbers = [(count - 1) / count * compute_log_odds(round(strength, DIGITS)) for strength in standing.strength]
    return ComparedItem(numbers, numbers, [cut] * count, sides)


def render_comparisons(renderer: Renderer, item: Item) -> list[Rendered]:
    """Render all comparisons of an item's answers, each in both orders: N (N − 1) texts. Long texts are cut.

    Raises:
        BadRecord: the text of a pair has no place for the item's tools, or for another part of it.
    """
    answers, inputs = item.answers, make_template_inputs(item.template_arguments)
    with locate_refusals(item.id):
        return [
            render_pair(renderer, item.prompt, answers[i], answers[j], inputs=inputs)
            for two in list_pairs(len(answers))
            for i, j in (two, two[::-1])
        ]


def read_sides(count: int, logits: Sequence[float]) -> list[list[float]]:
    """Make :attr:`ComparedItem.sides` from the log-odds of the texts of :func:`render_comparisons`, in their order."""
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
        logit: computes the log-odds from one row of the head, with the temperature.
        batch: the number of texts in one batch.
        done: called with the number of further answers that are judged.
    """
    rendered = [render_comparisons(reader.renderer, item) for item in items]
    ids = [text.ids for each in rendered for text in each]
    rows = iter(reader.score_ids(ids, batch, spread_progress(done, sum(len(item.answers) for item in items), len(ids))))
    scored: list[ScoredItem] = []
    for item, each in zip(items, rendered, strict=True):
        logits = [logit(row) for row in islice(rows, len(each))]
        scored.append(score_comparisons(read_sides(len(item.answers), logits), any(text.truncated for text in each)))
    return scored


# --------------------------------------------------------------------------- over HTTP


def compares_answers(client: Client, choice: ObjectiveChoice) -> bool:
    """Return whether the chosen rewards of a server are pairwise models.

    The server's model cards do not say this, so one label is requested: only pairwise models give ``orders``.

    Raises:
        TureenError: the server cannot be reached, the rewards read steps, or they are of different kinds.
    """
    (label,) = _labels(client, choice, [{"prompt": "?", "candidates": ["yes", "no"]}], truncate=True)
    return label.orders is not None


def ask_server(
    client: Client, choice: ObjectiveChoice, items: Sequence[Item], batch: int, done: Done
) -> list[ScoredItem]:
    """Have a server compare all answers of each item.

    Args:
        batch: the number of items in one request.
        done: called with the number of further answers that are judged.

    Raises:
        BadRecord: the server refuses an item, or its answers are whole conversations.
    """
    scored: list[ScoredItem] = []
    for start in range(0, len(items), batch):
        some = items[start : start + batch]
        found = _asked(client, choice, [item for item in some if len(item.answers) > 1])
        for item in some:
            scored.append(next(found) if len(item.answers) > 1 else score_comparisons([[0.5]], cut=False))
            done(len(item.answers))
    return scored


def _asked(client: Client, choice: ObjectiveChoice, items: Sequence[Item]) -> Iterator[ScoredItem]:
    """Yield the scores of each item.

    A label does not tell whether a text was cut. So items are sent without truncation first, and those that are too
    long are sent again with it.
    """
    bodies = [_body(item) for item in items]
    labels = _labels(client, choice, bodies, truncate=False)
    long = [bool(label.error and label.error.code == CONTEXT_EXCEEDED) for label in labels]
    again = iter(_labels(client, choice, [body for body, cut in zip(bodies, long, strict=True) if cut], truncate=True))
    for item, first, cut in zip(items, labels, long, strict=True):
        label = next(again) if cut else first
        if label.order_matrix is None:
            why = label.error.message if label.error else "its label has no probabilities of both orders"
            raise BadRecord("the server refused it", why, item.id)
        yield score_comparisons(label.order_matrix, cut)


def _body(item: Item) -> dict[str, Any]:
    if not item.prompt:
        message = (
            "its answers are whole conversations, but a server compares answers to one prompt:"
            " evaluate the artifact's folder instead"
        )
        raise BadRecord("no prompt", message, item.id)
    candidates = [list(answer) for answer in item.answers]
    return {"prompt": list(item.prompt), "candidates": candidates, **item.template_arguments}


def _labels(client: Client, choice: ObjectiveChoice, bodies: Sequence[dict[str, Any]], truncate: bool) -> list[Label]:
    if not bodies:
        return []
    reply = client.preferences(
        bodies,
        rewards=list(choice.weights),
        **choice.write_weighing(),
        matrix=True,
        truncate=truncate,
        on_error="item",
    )
    return [label for label in reply.data if isinstance(label, Label)]


# --------------------------------------------------------------------------- figures and notes


def measure_position_bias(items: Sequence[Item], scored: Sequence[ScoredItem]) -> dict[str, Figure]:
    """Compute ``flips``, the share of comparable pairs whose verdict changes with the order; empty for other models."""
    sides = [each.sides for each in scored if isinstance(each, ComparedItem)]
    if not sides:
        return {}
    found = [is_flipped(matrix, i, j) for item, matrix in zip(items, sides, strict=True) for i, j in item.pairs]
    owners = flatten_pairs(items, [each.rewards for each in scored], [each.logits for each in scored])
    return {"flips": estimate_pair_share(owners, np.array(found, dtype=np.float64))}


def is_flipped(sides: Sequence[Sequence[float]], i: int, j: int) -> bool:
    """Return whether the verdict on answers i and j changes with their order, because the same place wins in both."""
    return (sides[i][j] - 0.5) * (sides[j][i] - 0.5) > 0


def describe_comparisons(scored: Sequence[ScoredItem]) -> list[str]:
    """Return notes for the report of a pairwise model; none for other models."""
    counts = [len(each.rewards) for each in scored if isinstance(each, ComparedItem)]
    if not counts:
        return []
    found = [
        "the model compares two answers: each pair was compared in both orders. The margins are log-odds with the"
        " temperature, so both rows of the calibration are the same"
    ]
    many = sum(count > 2 for count in counts)
    if many:
        found.append(
            f"{many} of {len(counts)} items have more than two answers: the answers are ranked by a round robin, by"
            " their mean probability of winning. Best of N, pair accuracy and margins are computed from this ranking"
        )
    return found
