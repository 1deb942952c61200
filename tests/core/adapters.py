"""Adapters for the tests of the core: in memory, in PEFT, and as folders that are then damaged."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiny
import torch
from peft import (
    LoraConfig,
    get_peft_model,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tureen_core.adapter_files import write_adapter
from tureen_core.lora import Adapter, LoraPair

Q0, Q1, DOWN0 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"


def pair(rank: int, shape: tuple[int, int], scale: float, seed: int) -> LoraPair:
    rng = torch.Generator().manual_seed(seed)
    out, inside = shape
    return LoraPair(torch.randn(rank, inside, generator=rng), torch.randn(out, rank, generator=rng), scale)


def irregular(name: str = "odd") -> Adapter:
    """Unequal ranks, and modules that differ from layer to layer."""
    whole = tiny.adapter(name, 3, rank=4).modules
    wide = tiny.adapter(name, 4, rank=6, scale=0.7).modules
    return Adapter(name, {Q0: whole[Q0], Q1: wide[Q1], DOWN0: wide[DOWN0]})


def peft_model(base: Path, **options: Any) -> Any:
    """A PEFT model over the tiny base with random A and B."""
    settings = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **options}
    torch.manual_seed(1)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def write_raw(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    return folder


def tiny_folder(folder: Path) -> Path:
    write_adapter(tiny.adapter("x", 0), folder, "tiny")
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
