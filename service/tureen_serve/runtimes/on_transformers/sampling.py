"""Sample a text's next token from its logits, as OpenAI's parameters define it.

The order is vLLM's: bias and penalties on the logits, temperature, ``min_p``, ``top_k``, nucleus, a draw. Each text has
its own random generator, so a seed gives the same tokens in any batch.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from tureen_serve.runtimes.sampling_fields import Sampling

COLDEST = 1e-4  # at most this temperature is greedy decoding
LIKELY = 256  # tokens among which a nucleus is looked for first


class Sampler:
    """Samples the tokens of one text.

    Args:
        sampling: the parameters. A temperature of at most :data:`COLDEST` takes the likeliest token.
        device: the device of the logits.
        prompt: the ids before the text, which the repetition penalty counts too.
        ends: ids that end a text, which are not drawn before ``min_tokens`` tokens.
    """

    def __init__(
        self, sampling: Sampling, device: torch.device, prompt: Sequence[int] = (), ends: Collection[int] = ()
    ) -> None:
        self._sampling = sampling
        self._ends = torch.tensor(sorted({*ends, *sampling.stop_tokens}), dtype=torch.long, device=device)
        self._drawn: Counter[int] = Counter()
        self._prompt = torch.tensor(sorted(set(prompt)), dtype=torch.long, device=device)
        self._random = torch.Generator(device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed % 2**63)
        self._biased = torch.tensor([token for token, _ in sampling.logit_bias], dtype=torch.long, device=device)
        self._bias = torch.tensor([bias for _, bias in sampling.logit_bias], dtype=torch.float32, device=device)

    def draw(self, logits: Tensor) -> Tensor:
        """Draw a token id ``[1]`` from float32 logits ``[V]``, which are not changed."""
        if self._sampling.temperature <= COLDEST:
            return self._penalise(logits).argmax(-1, keepdim=True)
        probabilities = self.weigh(logits)
        if self._sampling.top_p >= 1:
            return torch.multinomial(probabilities, 1, generator=self._random)
        likely, tokens = select_nucleus(probabilities, self._sampling.top_p)
        return tokens[torch.multinomial(likely, 1, generator=self._random)]

    def weigh(self, logits: Tensor) -> Tensor:
        """Compute the probabilities ``[V]`` of the next token, before the nucleus."""
        return self._truncate(self._penalise(logits) / self._sampling.temperature).softmax(-1)

    def note(self, token: int) -> None:
        """Count a drawn token for the penalties."""
        self._drawn[token] += 1

    def _penalise(self, logits: Tensor) -> Tensor:
        """Compute r(logits[t] + bias[t]) − frequency·count[t] − presence·1[count[t] > 0].

        r is the repetition penalty (CTRL, arXiv 1909.05858) of a token that is in the prompt or in the text.
        """
        wants, logits = self._sampling, self._forbid_ends(logits)
        if len(self._biased):
            logits = logits.index_add(0, self._biased, self._bias)
        if wants.repetition_penalty != 1:
            said = torch.cat([self._prompt, torch.tensor(list(self._drawn), dtype=torch.long, device=logits.device)])
            before = logits[said]
            weight = torch.where(before > 0, 1 / wants.repetition_penalty, wants.repetition_penalty)
            logits = logits.index_copy(0, said, before * weight)  # where a token is named twice, the values are equal
        if self._drawn and (wants.frequency_penalty or wants.presence_penalty):
            tokens = torch.tensor(list(self._drawn), device=logits.device)
            counts = torch.tensor(list(self._drawn.values()), dtype=logits.dtype, device=logits.device)
            logits = logits.index_add(0, tokens, -(wants.frequency_penalty * counts + wants.presence_penalty))
        return logits

    def _forbid_ends(self, logits: Tensor) -> Tensor:
        """Set the logits of the ends to −∞ while the text is too short, unless only an end may follow."""
        if not self._sampling.min_tokens or self._drawn.total() >= self._sampling.min_tokens:
            return logits
        found = logits.index_fill(0, self._ends, -torch.inf)
        return logits if found.isneginf().all() else found

    def _truncate(self, logits: Tensor) -> Tensor:
        """Set the tempered logits to −∞ that ``min_p``, and then ``top_k``, leave out. Equal logits stay together."""
        wants = self._sampling
        if wants.min_p:
            probabilities = logits.softmax(-1)
            logits = logits.masked_fill(probabilities < wants.min_p * probabilities.max(), -torch.inf)
        if 0 < wants.top_k < len(logits):
            logits = logits.masked_fill(logits < logits.topk(wants.top_k).values[-1], -torch.inf)
        return logits


def select_nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Select the smallest set of likeliest tokens whose probability reaches ``top_p`` (nucleus, arXiv 1904.09751).

    The set is mostly among the :data:`LIKELY` likeliest tokens, so the whole vocabulary is sorted only if it is not.

    Returns:
        The probabilities, not normalised again, and the token ids, likeliest first.
    """
    top, tokens = probabilities.topk(min(LIKELY, len(probabilities)))
    if top.sum() < top_p:
        top, tokens = probabilities.sort(descending=True)
    kept = top.cumsum(-1) - top < top_p
    return top[kept], tokens[kept]


def collect_ends(configured: int | list[int] | None, fallback: int | None) -> frozenset[int]:
    """Collect the ids that end a text."""
    if isinstance(configured, list):
        return frozenset(configured)
    end = fallback if configured is None else configured
    return frozenset() if end is None else frozenset({end})
