"""Likelihood of an answer under an expert, read by PEFT in float32: what an expert's probes record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.template import Messages, Reading, Renderer


class ExpertReader:
    """A base with one adapter on it, or bare (``folder=None``).

    Args:
        folder: a PEFT LoRA folder.
        base: the base's folder.
    """

    def __init__(self, folder: Path | None, base: Path, reading: Reading) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if folder is not None:
            model = PeftModel.from_pretrained(model, folder)
        self.model: Any = model.eval()
        self.renderer = Renderer(load_tokenizer(base), reading)

    @torch.inference_mode()
    def mean_logprobs(self, conversations: Sequence[Messages]) -> list[float]:
        """Mean log-probability, in nats a token, of each conversation's last message and its end mark."""
        return [self._one(messages) for messages in conversations]

    def _one(self, messages: Messages) -> float:
        ids = self.renderer.conversation(messages).ids
        start = len(self.renderer.prompt(messages[:-1]))
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].float()
        answer = torch.tensor(ids[start:])
        return float(torch.log_softmax(logits, -1).gather(1, answer[:, None]).mean())
