"""Write log-probabilities as JSON can have them, and those of a prompt as vLLM does. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from tureen.errors import ServerFault
from tureen_serve.runtimes.contract import TokenLogprob

LOWEST_LOGPROB = -9999.0


def write_logprob(logprob: float) -> float:
    """Return the logarithm of a probability; OpenAI writes -9999 for that of 0.

    Raises:
        ServerFault: it is not the logarithm of a number.
    """
    if math.isnan(logprob) or logprob == math.inf:
        raise ServerFault("the model computed log-probabilities that are not finite", code="non_finite_logits")
    return LOWEST_LOGPROB if logprob == -math.inf else logprob


def write_prompt_logprobs(prompt: Sequence[TokenLogprob], alternatives: int) -> list[dict[str, Any] | None]:
    """Write vLLM's ``prompt_logprobs``: for each token of the prompt a map from ids, the token's own first.

    The first token of the prompt has null, since nothing is before it.

    Args:
        prompt: its tokens after the first.
        alternatives: how many of the likeliest tokens are told for each.
    """
    told: list[dict[str, Any] | None] = [None]
    for each in prompt:
        entries = {str(each.id): _entry(each.token, each.logprob, each.rank)}
        for rank, (token, number, value) in enumerate(each.top[:alternatives], start=1):
            entries.setdefault(str(number), _entry(token, value, rank))
        told.append(entries)
    return told


def _entry(token: str, logprob: float, rank: int) -> dict[str, Any]:
    return {"logprob": write_logprob(logprob), "rank": rank, "decoded_token": token}
