"""How one row's next token is drawn from its logits, as OpenAI's parameters define it.

Order: penalties and bias on the logits, temperature, nucleus, a draw. Each row has its own generator, so that a seed
gives the same tokens whatever else is in the batch.
"""

from collections import Counter

import torch
from torch import Tensor

from tureen_serve.runtimes.contract import Sampling

COLDEST = 1e-4
LIKELY = 256


class Sampler:
    """Draws the tokens of one text.

    Args:
        sampling: its parameters; a temperature of at most :data:`COLDEST` takes the likeliest token.
        device: where the logits are.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._drawn: Counter[int] = Counter()
        self._random = torch.Generator(device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed % 2**63)
        self._biased = torch.tensor([token for token, _ in sampling.logit_bias], dtype=torch.long, device=device)
        self._bias = torch.tensor([bias for _, bias in sampling.logit_bias], dtype=torch.float32, device=device)

    def draw(self, logits: Tensor) -> Tensor:
        """A token id ``[1]`` from one row's float32 logits ``[V]``, which are left as they are."""
        logits = self._penalised(logits)
        if self._sampling.temperature <= COLDEST:
            return logits.argmax(-1, keepdim=True)
        probabilities = (logits / self._sampling.temperature).softmax(-1)
        if self._sampling.top_p >= 1:
            return torch.multinomial(probabilities, 1, generator=self._random)
        likely, tokens = select_nucleus(probabilities, self._sampling.top_p)
        return tokens[torch.multinomial(likely, 1, generator=self._random)]

    def note(self, token: int) -> None:
        """Count a token that was drawn, for the penalties."""
        self._drawn[token] += 1

    def _penalised(self, logits: Tensor) -> Tensor:
        """logits[t] − frequency·count[t] − presence·1[count[t] > 0] + bias[t]."""
        wants = self._sampling
        if self._drawn and (wants.frequency_penalty or wants.presence_penalty):
            tokens = torch.tensor(list(self._drawn), device=logits.device)
            counts = torch.tensor(list(self._drawn.values()), dtype=logits.dtype, device=logits.device)
            logits = logits.index_add(0, tokens, -(wants.frequency_penalty * counts + wants.presence_penalty))
        return logits.index_add(0, self._biased, self._bias) if len(self._biased) else logits


def select_nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest likeliest tokens that reach ``top_p`` (Holtzman et al., arXiv 1904.09751), likeliest first.

    They mostly stand among the :data:`LIKELY` first; to look there spares the sort of a whole vocabulary.

    Returns:
        Their probabilities, not normalised again, and their ids.
    """
    top, tokens = probabilities.topk(min(LIKELY, len(probabilities)))
    if top.sum() < top_p:
        top, tokens = probabilities.sort(descending=True)
    kept = top.cumsum(-1) - top < top_p
    return top[kept], tokens[kept]
