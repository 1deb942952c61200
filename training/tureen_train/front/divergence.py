"""How far a method's answers are from a base: log π(answer) as its server tells, minus log π_base(answer)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer, locate_base
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.policies.encoding import encode_beginning
from tureen_train.policies.rollouts.contract import Prompt

LEAST = -9000.0  # OpenAI's servers write -9999 for the logarithm of 0


class BaseLogprobs:
    """Log-probabilities of answers under a base, in float32. Its prompts say nothing of what is wanted.

    Args:
        base: a folder, or the name of a packaged base.

    Raises:
        BaseError: there is no such base.
    """

    def __init__(self, base: str) -> None:
        folder = locate_base(base)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        longest = int(self.model.config.max_position_embeddings)
        self.renderer = Renderer(load_tokenizer(folder), Reading(max_length=longest))

    @torch.inference_mode()
    def read(self, prompt: Prompt, text: str) -> tuple[float, int]:
        """The sum of the log-probabilities of an answer's tokens in nats, without an end mark, and their number."""
        if not text:
            return 0.0, 0
        said = ({"role": "assistant", "content": text},)
        answer = encode_beginning(self.renderer, prompt.messages, said, prompt.template_arguments)
        count = len(answer.ids) - answer.start
        ids = torch.tensor([answer.ids], device=self.model.device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=count + 1).logits[0, :-1]
        chosen = torch.log_softmax(logits.float(), -1).gather(1, ids[0, -count:, None])
        return float(chosen.double().sum()), count


def add_told(logprobs: Any) -> tuple[float | None, int]:
    """Add up the log-probabilities of a chat's choice, and count them.

    There is no sum if the server does not tell them, or if one is that of 0.
    """
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    told: Sequence[float] = [float(each["logprob"]) for each in content] if content else []
    return (math.fsum(told) if told and min(told) > LEAST else None), len(told)
