"""The figures of a round: rewards, lengths, repetition, and how far the policy is from its reference."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from tureen_train.measures.correlation import compute_pearson
from tureen_train.measures.repetition import compute_distinct_bigrams
from tureen_train.policies.rollouts.contract import Reward
from tureen_train.policies.rollouts.rounds import Answered, Written


def measure_answers(answered: Answered) -> dict[str, float]:
    """Compute the figures of all answers of a round.

    Returns:
        ``reward`` and ``reward_NAME`` are means over the answers that have a reward, and ``..._std`` are the population
        deviations. ``failed``, ``empty`` and ``unfinished`` (without an end token) are shares of all answers.
        ``length`` is their mean number of tokens, with the end token, ``kl_per_token`` the estimate of the KL
        divergence from the reference in nats per token, and ``distinct_2`` the mean share of distinct pairs of words in
        an answer. ``follows_NAME`` is Pearson's correlation of a reward with what the prompts ask for. A figure that
        nothing tells is left out.
    """
    written = list(chain.from_iterable(answered.written))
    rewards = list(chain.from_iterable(answered.rewards))
    figures = _measure_rewards(rewards) | _measure_following(answered)
    if written:
        figures["failed"] = sum(each.total is None for each in rewards) / len(rewards)
        figures["empty"] = sum(each.sample.empty for each in written) / len(written)
        figures["unfinished"] = sum(not each.sample.finished for each in written) / len(written)
    lengths = [float(len(each.sample.ids)) for each in written if each.sample.ids]
    repetition = [share for each in written if not math.isnan(share := compute_distinct_bigrams(each.sample.text))]
    for name, values in {"length": lengths, "distinct_2": repetition}.items():
        if values:
            figures[name] = math.fsum(values) / len(values)
    kl = estimate_kl(written)
    return figures if kl is None else {**figures, "kl_per_token": kl}


def estimate_kl(written: Sequence[Written]) -> float | None:
    """Estimate the KL divergence of a policy from its reference, in nats per token.

    It is Σ (log π − log π_ref) over all tokens that π drew, divided by their number. This has the right mean where
    the answers were drawn at temperature 1 from all tokens; it may be below 0 by chance.

    Returns:
        None if no answer has both log-probabilities.
    """
    known = [
        (each.logprob - each.reference_logprob, len(each.sample.ids))
        for each in written
        if each.logprob is not None and each.reference_logprob is not None
    ]
    tokens = sum(count for _, count in known)
    return math.fsum(gap for gap, _ in known) / tokens if tokens else None


def _measure_rewards(rewards: Sequence[Reward]) -> dict[str, float]:
    columns: dict[str, list[float]] = {"reward": [each.total for each in rewards if each.total is not None]}
    for each in rewards:
        for name, value in each.values.items():
            columns.setdefault(f"reward_{name}", []).append(value)
    figures: dict[str, float] = {}
    for name, values in columns.items():
        if values:
            figures[name], figures[f"{name}_std"] = _compute_moments(values)
    return figures


def _measure_following(answered: Answered) -> dict[str, float]:
    """Correlate the rewards that were asked for with those that were obtained, over answers that have them."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for prompt, rewards in zip(answered.prompts, answered.rewards, strict=True):
        for name, wanted in (prompt.desired or {}).items():
            pairs.setdefault(name, []).extend((wanted, each.values[name]) for each in rewards if name in each.values)
    found = {f"follows_{name}": compute_pearson(*np.array(each).T) for name, each in pairs.items() if each}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _compute_moments(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def measure_kept(answered: Answered, kept: int, pairs: bool) -> Mapping[str, float]:
    """Compute ``kept_share``: the kept answers as a share of all, or the pairs as a share of all prompts."""
    total = len(answered.prompts) if pairs else sum(map(len, answered.written))
    return {"kept_share": kept / total} if total else {}
