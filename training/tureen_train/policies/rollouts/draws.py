"""Draw the tokens of a batch of answers, each answer with its own random numbers.

A token is drawn by inverting the distribution function: with u uniform in [0, 1), the drawn token is the first one at
which the sum of probabilities exceeds u. An answer's random numbers depend only on the seed, the prompt's id and the
answer's number. So an answer does not depend on what else is in its batch, nor on the state of PyTorch's generators.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tureen_train.config import Sampling

BLOCK = 128  # neighbouring tokens whose probabilities are added up first
STRIDE = 1_000_003  # between the seeds of two runs, so that no round of one has the seed of a round of the other


def make_round_seed(seed: int, number: int) -> int:
    """Make the seed of a round or step of a run.

    Args:
        seed: the run's.
        number: of the round, from 1; 0 is that of the held-out prompts.
    """
    return seed * STRIDE + number


def make_uniforms(seed: int, prompt: str, number: int, count: int) -> Tensor:
    """Make an answer's ``count`` random numbers, uniform in [0, 1), in float64.

    Args:
        seed: the run's, or the round's.
        prompt: the prompt's id.
        number: of the answer among those to its prompt.
    """
    digest = hashlib.sha256(f"{seed} {number} {prompt}".encode()).digest()
    words = [int.from_bytes(digest[start : start + 4], "little") for start in range(0, len(digest), 4)]
    return torch.from_numpy(np.random.default_rng(words).random(count))


def draw_tokens(scores: Tensor, uniforms: Tensor) -> Tensor:
    """Draw a token of each row.

    Args:
        scores: ``[B, V]`` logits; −∞ for tokens that must not be drawn.
        uniforms: ``[B]`` in [0, 1), in float64.

    Returns:
        ``[B]`` token ids.

    The running sums are those of blocks first, then those within one block: 49,000 running sums of a row in float64
    would cost more than the rest. The probabilities have the precision of float32.
    """
    shares = (scores.float() - scores.float().amax(-1, keepdim=True)).exp()
    blocks = pad(shares, (0, -shares.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    goal = (uniforms * ends[:, -1]).unsqueeze(1)
    block = torch.searchsorted(ends, goal, right=True)
    before = pad(ends, (1, 0)).gather(1, block)
    within = blocks[torch.arange(len(blocks), device=blocks.device), block.squeeze(1)].cumsum(-1, dtype=torch.float64)
    # a block's sum and the last of its running sums may differ in their last bits
    goal = torch.minimum(goal - before, torch.nextafter(within[:, -1:], torch.zeros_like(goal)))
    return (block * BLOCK + torch.searchsorted(within, goal, right=True)).squeeze(1)


class TokenDrawer(LogitsProcessor):
    """Draws the next token of each row, for ``generate`` with ``do_sample=False``: the drawn token has the best score.

    The order is: no end token before ``min_tokens``, temperature, top-k, top-p, the draw. A temperature of 0 takes the
    likeliest token.

    Args:
        sampling: the recipe's.
        uniforms: ``[B, max_tokens]`` of :func:`make_uniforms`, a row for each answer.
        ends: the ids of end tokens.
        known: the number of ids that the tokenizer knows. A model may have more logits; their tokens are never drawn.

    Attributes:
        logprobs: for each step, the ``[B]`` log-probabilities of the drawn tokens under the model itself: before
            anything above is applied.
    """

    def __init__(self, sampling: Sampling, uniforms: Tensor, ends: Sequence[int], known: int) -> None:
        self.logprobs: list[Tensor] = []
        self._sampling = sampling
        self._uniforms = uniforms
        self._ends = list(ends)
        self._known = known
        self._warpers: list[LogitsProcessor] = []
        if sampling.temperature not in (0, 1):
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return ``[B, V]`` scores: 0 for the drawn token of a row and −∞ for all others.

        Raises:
            FloatingPointError: a logit is not a number, or +∞.
        """
        if not bool(scores.amax(-1).isfinite().all()):  # the largest is NaN where any is
            raise FloatingPointError(
                "the policy computed logits that are not finite: lower optimisation.learning_rate, or start from an "
                "earlier checkpoint"
            )
        tokens = self._choose(input_ids, scores).unsqueeze(1)
        self.logprobs.append((scores.gather(1, tokens) - scores.logsumexp(-1, keepdim=True)).squeeze(1))
        return torch.full_like(scores, -math.inf).scatter(1, tokens, 0.0)

    def _choose(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.logprobs)
        early = step + 1 < self._sampling.min_tokens
        allowed = scores
        if early or scores.shape[1] > self._known:
            allowed = scores.clone()
            allowed[:, self._known :] = -math.inf
        if early:
            allowed[:, self._ends] = -math.inf
        if self._sampling.temperature == 0:
            return allowed.argmax(-1)
        for warper in self._warpers:
            allowed = warper(input_ids, allowed)
        return draw_tokens(allowed, self._uniforms[:, step])
