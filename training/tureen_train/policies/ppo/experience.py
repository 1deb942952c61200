"""What a step of PPO learns from: the answers' tokens with their rewards, advantages and returns. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tureen_train.config import PpoPolicy
from tureen_train.policies.ppo.actor_critic import Figures
from tureen_train.policies.ppo.advantages import compute_token_rewards, estimate_advantages, whiten_tokens
from tureen_train.policies.ppo.losses import Tokens, explain_variance


@dataclass(frozen=True)
class Experience:
    """The answers of a step.

    Attributes:
        known: what is known of their tokens; ``[M, T]`` each, padded on the right.
        kl: log π − log π_ref, summed over an answer's tokens and averaged over the answers, in nats.
        kl_per_token: the same sum, averaged over all tokens.
        entropy: of the policy's distribution of a token, averaged over tokens, in nats.
        explained: the share of the returns' variance that the values explain; NaN where they do not vary.
    """

    known: Tokens
    kl: float
    kl_per_token: float
    entropy: float
    explained: float


def make_experience(
    figures: Figures, reference: Tensor, scores: Sequence[float], lengths: Sequence[int], policy: PpoPolicy, kl: float
) -> Experience:
    """Make the experience of a step.

    Args:
        figures: by the policy and its critic, ``[M, T]`` each.
        reference: ``[M, T]``, the tokens' log-probabilities under the reference.
        scores: of the answers, on their final scale.
        lengths: the number of each answer's tokens.
        kl: the coefficient of the KL divergence.
    """
    mask = make_mask(lengths, reference.shape[1])
    rewards = compute_token_rewards(figures.logprobs, reference, torch.tensor(scores), mask, kl)
    if policy.whiten_rewards:
        rewards = whiten_tokens(rewards, mask, centre=False)
    advantages, returns = estimate_advantages(rewards, figures.values, mask, policy.gamma, policy.trace)
    if policy.whiten_advantages:
        advantages = whiten_tokens(advantages, mask)
    gap = torch.where(mask, figures.logprobs - reference, 0)
    return Experience(
        known=Tokens(figures.logprobs, figures.values, advantages, returns),
        kl=float(gap.sum(1).mean()),
        kl_per_token=float(gap[mask].mean()),
        entropy=float(figures.entropies[mask].mean()),
        explained=explain_variance(figures.values[mask], returns[mask]),
    )


def make_mask(lengths: Sequence[int], width: int) -> Tensor:
    """Make the mask ``[M, T]`` of answers: true on their tokens."""
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def find_finite(figures: Figures, reference: Tensor) -> list[bool]:
    """Tell of each answer whether all its figures are finite."""
    tables = torch.stack([*figures, reference])
    return tables.isfinite().all(0).all(1).tolist()
