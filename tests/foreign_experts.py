"""Experts as others save them: PEFT adapters and whole models over the tiny base, with effects that a test can see."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    HRAConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    VeraConfig,
    get_peft_model,
)
from torch import Tensor
from transformers import AutoModelForCausalLM

LINEARS = ["q_proj", "v_proj", "down_proj"]
# every variation that is linear in rank space
LORAS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "target_modules": LINEARS},
    "one layer": {"r": 3, "target_modules": ["gate_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "rslora": {"r": 5, "lora_alpha": 7, "use_rslora": True, "target_modules": LINEARS},
    "patterns": {
        "r": 4,
        "target_modules": r".*\.(q|o)_proj",
        "rank_pattern": {"o_proj": 2, r"layers\.1\.self_attn\.q_proj": 6},
        "alpha_pattern": {"layers.0.self_attn.o_proj": 3},
        "use_rslora": True,
    },
    "all linear": {"r": 2, "target_modules": "all-linear", "exclude_modules": ["k_proj"]},
    "tied head": {"r": 4, "target_modules": ["lm_head", "q_proj"]},
    "saved embeddings": {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}
# what PEFT can merge into the base
MERGED: dict[str, Any] = {
    "dora": LoraConfig(r=4, use_dora=True, target_modules=LINEARS),
    "dora rslora": LoraConfig(r=4, use_dora=True, use_rslora=True, target_modules="all-linear"),
    "loha": LoHaConfig(r=2, target_modules=LINEARS),
    "lokr": LoKrConfig(r=2, target_modules=LINEARS),
    "oft": OFTConfig(r=0, oft_block_size=8, target_modules=LINEARS),
    "hra": HRAConfig(r=4, target_modules=LINEARS),
    "vera": VeraConfig(r=8, target_modules=["q_proj"]),
    "ia3": IA3Config(target_modules=LINEARS, feedforward_modules=["down_proj"]),
    "adalora": AdaLoraConfig(init_r=6, target_r=4, total_step=10, target_modules=LINEARS),
}


def open_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def save_peft(base: Path, folder: Path, config: PeftConfig, seed: int = 1, size: float = 0.2) -> Any:
    """Save an adapter whose trained parameters were all moved, and return the model, as PEFT computes it."""
    torch.manual_seed(seed)
    config = deepcopy(config)  # PEFT writes the base into it
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(open_base(base), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "modules_to_save" not in name:
            parameter.data += size * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


def save_lora(base: Path, folder: Path, seed: int = 1, **options: Any) -> Any:
    """Save a LoRA; see :func:`save_peft`."""
    return save_peft(base, folder, LoraConfig(**{"r": 4, "target_modules": LINEARS, **options}), seed)


def save_full(base: Path, folder: Path, seed: int = 1, size: float = 0.05, only: str = "_proj") -> Any:
    """Save a whole model whose weights with ``only`` in their name were moved."""
    torch.manual_seed(seed)
    model = open_base(base)
    for name, parameter in model.named_parameters():
        if only in name:
            parameter.data += size * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Logits ``[1, T, V]`` of one fixed text."""
    ids = torch.tensor([[1, 40, 77, 103, 9, 250, 66, 31, 2]])
    found: Tensor = model(input_ids=ids).logits
    return found
