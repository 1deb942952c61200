"""The likelihood of an answer under an expert, which an expert's probes record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.inputs import render_expert_probe
from tureen_core.manifest import Probe
from tureen_core.reading import Reading
from tureen_core.template import Renderer


class ExpertReader:
    """A base with one adapter, or bare (``folder=None``), opened by PEFT.

    Args:
        folder: a PEFT LoRA folder, or None.
        base: the base's folder.
        reading: how texts become ids.
        dtype: of the base's weights.
        device: where the model runs.

    Attributes:
        half: whether to run under bfloat16 autocast, as training in bf16 does.
    """

    def __init__(
        self,
        folder: Path | None,
        base: Path,
        reading: Reading,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        safely: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
        opened = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, trust_remote_code=False, **safely)
        model: Any = keep_attention_cap(opened)
        if folder is not None:
            model = PeftModel.from_pretrained(model, folder, **safely)
        self.model: Any = model.eval().to(device)
        self.renderer = Renderer(load_tokenizer(base), reading)
        self.half = False

    def mean_logprobs(self, probes: Sequence[Probe]) -> list[float]:
        """See :func:`compute_mean_logprobs`."""
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.half):
            return compute_mean_logprobs(self.model, self.renderer, probes)


@torch.no_grad()
def compute_mean_logprobs(model: Any, renderer: Renderer, probes: Sequence[Probe]) -> list[float]:
    """Compute the mean log-probability, in nats per token, of each probe's last message with its end token."""
    return [_mean_logprob(model, renderer, probe) for probe in probes]


def _mean_logprob(model: Any, renderer: Renderer, probe: Probe) -> float:
    ids, start = render_expert_probe(renderer, probe)
    whole = torch.tensor([ids], device=model.device)
    logits = model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0, start - 1 : -1].float()
    answer = whole[0, start:]
    return float(torch.log_softmax(logits, -1).gather(1, answer[:, None]).mean())
