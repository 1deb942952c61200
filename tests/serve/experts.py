"""A tiny base, experts on it, and what an explicitly merged checkpoint gives: the reference of the runtime's tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import tiny
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tureen_core.checkpoint_merge import merge_checkpoint
from tureen_core.soup import Semantics, Stack, concatenate_adapters

NAMES = ("academy", "business", "poetry")


def stack(names: Sequence[str] = NAMES) -> Stack:
    """Random experts of equal rank and scale."""
    return concatenate_adapters([tiny.adapter(name, seed) for seed, name in enumerate(names)])


def causal(folder: Path) -> Any:
    """A causal model as Hugging Face loads it, float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()


def merged(folder: Path, weights: Mapping[str, float], semantics: Semantics = "delta", of: Stack | None = None) -> Any:
    """The soup merged into a full checkpoint on disk, and loaded from there."""
    out = Path(mkdtemp(dir=folder.parent))
    merge_checkpoint(folder, of or stack(), weights, out, semantics, torch.float32)
    return causal(out)


@torch.inference_mode()
def logprobs(model: Any, ids: Sequence[int]) -> Tensor:
    """Log-probabilities ``[T, V]`` after each token of one text, alone and without padding."""
    found: Tensor = model(input_ids=torch.tensor([list(ids)])).logits[0].log_softmax(-1)
    return found


def texts(lengths: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """Random ids that are no special tokens."""
    rng = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(3, 250, (length,), generator=rng).tolist()) for length in lengths]
