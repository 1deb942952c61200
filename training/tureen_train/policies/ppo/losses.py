"""The losses of PPO: clipped policy and value losses of tokens, and what is watched beside them. Pure.

Tensors are ``[N]``, the answers' tokens of a micro-batch without padding. Losses are sums, so that micro-batches and
ranks add up to the mean over an update's tokens, however they are split.
"""

from typing import NamedTuple

import torch
from torch import Tensor

SHARES = ("clip_share", "value_clip_share")


class Tokens(NamedTuple):
    """What is known of the tokens before an update; ``[N]`` each.

    Attributes:
        logprobs: log π under the policy that wrote them.
        values: by the critic at that time.
        advantages: see :mod:`.advantages`.
        returns: what the values are trained toward.
    """

    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Clips(NamedTuple):
    """Settings of the losses.

    Attributes:
        ratio: ε, how far π / π_old may be from 1.
        value: how far a value may be from the earlier one.
        weight: of the value loss.
    """

    ratio: float
    value: float
    weight: float


class Watched(NamedTuple):
    """Sums over the tokens of a micro-batch, without gradient; a scalar tensor each.

    Attributes:
        tokens: how many they are.
        policy_loss: see :func:`compute_policy_losses`.
        value_loss: see :func:`compute_value_losses`.
        ratio: π / π_old.
        moved: log π_old − log π, whose mean estimates KL(π_old, π) without bias.
        approx_kl: ½ (log π_old − log π)², which is never negative.
        clipped: the tokens whose ratio is clipped.
        value_clipped: the tokens whose value is clipped.
    """

    tokens: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    ratio: Tensor
    moved: Tensor
    approx_kl: Tensor
    clipped: Tensor
    value_clipped: Tensor


def compute_policy_losses(ratio: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Compute the clipped policy loss of each token (arXiv 1707.06347, equation 7).

    It is max(−A · ρ, −A · clip(ρ, 1 − ε, 1 + ε)).

    Args:
        ratio: ρ = π / π_old, ``[N]``.
        advantages: A, ``[N]``.
        clip: ε.

    Returns:
        The losses ``[N]``, and where the clipped one is the larger, so that the token has no gradient.
    """
    free = -advantages * ratio
    held = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, held), held > free


def compute_value_losses(values: Tensor, before: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Compute the clipped value loss of each token, as OpenAI's PPO and TRL do.

    It is ½ max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²).

    Args:
        values: V, ``[N]``.
        before: V_old, ``[N]``.
        returns: R, ``[N]``.
        clip: ε.

    Returns:
        The losses ``[N]``, and where the clipped one is the larger, so that the token has no gradient.
    """
    free = (values - returns) ** 2
    held = (before + (values - before).clamp(-clip, clip) - returns) ** 2
    return torch.maximum(free, held) / 2, held > free


def sum_losses(logprobs: Tensor, values: Tensor, old: Tokens, clips: Clips) -> tuple[Tensor, Watched]:
    """Sum the losses of a micro-batch over its tokens: the policy's, and ``clips.weight`` times the values'.

    Args:
        logprobs: log π of the tokens now, ``[N]``.
        values: the critic's values now, ``[N]``.
        old: what was known of these tokens before.

    Returns:
        A scalar to be divided by the tokens of the update, and sums to watch.
    """
    ratio = (logprobs - old.logprobs).exp()
    policy, clipped = compute_policy_losses(ratio, old.advantages, clips.ratio)
    value, value_clipped = compute_value_losses(values, old.values, old.returns, clips.value)
    moved = (old.logprobs - logprobs).detach()
    watched = Watched(
        tokens=torch.full_like(moved, 1).sum(),
        policy_loss=policy.detach().sum(),
        value_loss=value.detach().sum(),
        ratio=ratio.detach().sum(),
        moved=moved.sum(),
        approx_kl=(moved**2).sum() / 2,
        clipped=clipped.sum().to(moved.dtype),
        value_clipped=value_clipped.sum().to(moved.dtype),
    )
    return policy.sum() + clips.weight * value.sum(), watched


def average_sums(sums: Tensor) -> dict[str, float]:
    """Divide the sums of :class:`Watched` by the number of tokens; without tokens all are 0.

    Args:
        sums: ``[8]``, in the order of the fields, over any micro-batches.
    """
    tokens, *others = sums.tolist()
    means = [each / max(tokens, 1) for each in others]
    return dict(zip(("policy_loss", "value_loss", "ratio", "moved", "approx_kl", *SHARES), means, strict=True))


def explain_variance(values: Tensor, returns: Tensor) -> float:
    """Compute 1 − Var(R − V) / Var(R), the share of the returns' variance that the values explain.

    It is NaN where the returns do not vary.

    Args:
        values: V, ``[N]``; one at least.
        returns: R, ``[N]``.
    """
    spread = returns.var(correction=0)
    return float(1 - (returns - values).var(correction=0) / spread) if spread > 0 else float("nan")


def is_usable(watched: Watched, limit: float) -> bool:
    """Tell whether a micro-batch may be learnt from: its sums are finite, and its mean ratio is at most ``limit``."""
    finite = bool(torch.stack(list(watched)).isfinite().all())
    return finite and float(watched.ratio) <= limit * float(watched.tokens)
