"""Advantages of tokens: rewards of tokens, generalised advantage estimation, whitening. Pure.

All tensors are ``[M, T]``: a row for each answer, padded on the right. ``mask`` is true on the answer's tokens, the end
token among them; every answer has one at least. On padding the results are 0.
"""

import torch
from torch import Tensor


def compute_token_rewards(logprobs: Tensor, reference: Tensor, scores: Tensor, mask: Tensor, kl: float) -> Tensor:
    """Compute the reward of each token: −kl · (log π − log π_ref), and the answer's score at its last token.

    This is the reward of RLHF (arXiv 1909.08593, equation 2), token by token (arXiv 2203.02155, section 3.5).

    Args:
        logprobs: ``[M, T]``, log π of each token under the policy that wrote it.
        reference: ``[M, T]``, its log-probability under the reference.
        scores: ``[M]``, an answer's score each.
        kl: the coefficient of the KL divergence.
    """
    rewards = torch.where(mask, -kl * (logprobs - reference), 0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.to(rewards.dtype).unsqueeze(1))


def estimate_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Estimate advantages by GAE(γ, λ) (arXiv 1506.02438, equation 16), and returns.

    δ_t = r_t + γ · V_{t+1} − V_t, and A_t = δ_t + γ · λ · A_{t+1}. After the last token both are 0: an answer ends
    there, whether it was finished or cut. The return of a token, which its value is trained toward, is A_t + V_t.

    Args:
        rewards: ``[M, T]``, see :func:`compute_token_rewards`.
        values: ``[M, T]``; the value of a token is that of the text before it.
        gamma: γ, the discount.
        trace: λ. 0 trusts the values, and 1 the rewards.

    Returns:
        Advantages and returns, ``[M, T]`` each.
    """
    rewards, values = torch.where(mask, rewards, 0), torch.where(mask, values, 0)
    nexts = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * nexts - values
    advantages = torch.zeros_like(deltas)
    later = torch.zeros_like(deltas[:, 0])
    for place in reversed(range(deltas.shape[1])):
        later = deltas[:, place] + gamma * trace * later
        advantages[:, place] = later
    return advantages, advantages + values


def whiten_tokens(values: Tensor, mask: Tensor, centre: bool = True) -> Tensor:
    """Divide the tokens' numbers by their deviation over all answers, and subtract their mean.

    The variance has Bessel's correction and 1e-8 is added to it, as TRL does. Fewer than two tokens have no deviation
    and are not divided.

    Args:
        values: ``[M, T]``.
        centre: whether the mean is subtracted; else it stays what it was.
    """
    found = values[mask]
    if not len(found):
        return torch.zeros_like(values)
    mean = found.mean()
    inverse = (found.var() + 1e-8).rsqrt() if len(found) > 1 else torch.ones_like(mean)
    whitened = (values - mean) * inverse + (0 if centre else mean)
    return torch.where(mask, whitened, 0)
