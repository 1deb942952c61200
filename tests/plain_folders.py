"""Tiny plain reward models, as other libraries save them: without a manifest."""

import json
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForSequenceClassification

PADS_WITH_EOS = {"pad_token": "<|im_end|>"}


def classifier(
    folder: Path, seed: int = 0, labels: int = 1, tokenizer: dict[str, str] | None = None, **config: Any
) -> Path:
    """Write a reward model as TRL saves one: a decoder for sequence classification with ``score.weight``."""
    torch.manual_seed(seed)
    tok = tiny.tokenizer()
    tok.add_special_tokens(tokenizer or {})
    settings = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=tiny.HEAD,
        max_position_embeddings=512,
        initializer_range=0.2,
        num_labels=labels,
        pad_token_id=tok.pad_token_id,
        eos_token_id=tok.eos_token_id,
        **config,
    )
    LlamaForSequenceClassification(settings).float().save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def openrlhf(folder: Path, seed: int = 0, mean: float = 0.5, std: float = 2.0) -> Path:
    """Write a reward model as OpenRLHF saves one, whose rewards are normalised."""
    classifier(folder, seed)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["RewardModel"], "normalize_reward": True, "mean": mean, "std": std}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors["value_head.weight"] = tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
