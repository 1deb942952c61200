"""Tiny language models that judge by tokens, random items to judge, and a server of one plain folder."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import save_file
from starlette.testclient import TestClient
from tokenizers import AddedToken
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForTokenClassification,
    PreTrainedModel,
    Qwen2Config,
)

PHRASE = "the quick brown fox jumps over a lazy dog 12 + 30 = 42, so it is right; naïve wind\nand leaves fall"
WORDS = PHRASE.split(" ")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CLOSE = 1e-4
ONE = {"num_attention_heads": 1, "num_key_value_heads": 1}  # of 32 units, which vLLM's CPU attention takes


def write_tokenizer(folder: Path, *words: str, bos: str = "<s>") -> Any:
    """Write a byte-level tokenizer with a BOS of its own, and with these words as tokens."""
    tok = tiny.tokenizer()
    tok.add_special_tokens({"bos_token": AddedToken(bos, special=True)})
    tok.add_tokens([AddedToken(word, normalized=False) for word in words])
    tok.chat_template = TEMPLATE
    tok.save_pretrained(folder)
    return tok


def write_language_model(
    folder: Path, *words: str, kind: type[LlamaConfig] | Any = LlamaConfig, seed: int = 0, **changes: Any
) -> Any:
    """Write a tiny random language model; returns its tokenizer."""
    tok = write_tokenizer(folder, *words)
    save_model(AutoModelForCausalLM.from_config, make_config(tok, kind, **changes), folder, seed)
    return tok


def make_config(tok: Any, kind: Any = LlamaConfig, **changes: Any) -> Any:
    """A tiny configuration for a tokenizer."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id}
    more = {"num_key_value_heads": 2, "head_dim": tiny.HEAD, "initializer_range": 0.2, "vocab_size": len(tok)}
    return kind(**(sizes | ids | more | {"max_position_embeddings": 512, "tie_word_embeddings": True} | changes))


def save_model(make: Any, config: Any, folder: Path, seed: int = 0) -> None:
    """Save a random model of a configuration, in float32, whose vectors without training are random too."""
    torch.manual_seed(seed)
    model: PreTrainedModel = make(config).float()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)


def write_qwen(folder: Path, labels: int = 2) -> tuple[Any, nn.Module]:
    """A checkpoint as Qwen's own class writes it, and its head."""
    tok = write_tokenizer(folder)
    tok.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    tok.save_pretrained(folder)
    config = make_config(tok, Qwen2Config, **ONE)
    save_model(AutoModel.from_config, config, folder)
    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(3)
    score = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, labels))
    tensors = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors |= {f"score.{name}": tensor * 2 for name, tensor in score.state_dict().items()}
    score.load_state_dict({name.removeprefix("score."): each for name, each in tensors.items() if "score." in name})
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors")
    config.architectures = ["Qwen2ForProcessRewardModel"]
    config.save_pretrained(folder)
    return tok, score


def write_labelled(folder: Path, labels: int = 2) -> None:
    """A decoder for token classification, as TRL's PRMTrainer saves it."""
    tok = write_tokenizer(folder)
    save_model(LlamaForTokenClassification, make_config(tok, num_labels=labels), folder)


def write_valued(folder: Path) -> nn.Linear:
    """A checkpoint with Skywork's value head."""
    tok = write_tokenizer(folder)
    config = make_config(tok, Qwen2Config, tie_word_embeddings=False, **ONE)
    save_model(AutoModelForCausalLM.from_config, config, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(5)
    head = nn.Linear(32, 1)
    tensors = model.state_dict() | {f"v_head.summary.{name}": each for name, each in head.state_dict().items()}
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "model.safetensors")
    config.architectures = ["Qwen2ForPrmModel"]
    config.save_pretrained(folder)
    return head


def say(rng: random.Random, most: int = 12) -> str:
    """A random text."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def ask(client: TestClient, route: str, **body: Any) -> Any:
    """A reply without an error."""
    reply = client.post(route, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def logit(probability: float) -> float:
    """Log-odds."""
    return math.log(probability / (1 - probability))


def compare(found: Sequence[float], wanted: Sequence[float], spread: float = 0.1) -> None:
    """Two columns are equal to 1e-4, and are no constant."""
    largest = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
    print(f"largest difference of {len(found)}: {largest:.2g}")
    assert largest <= CLOSE
    assert max(wanted) - min(wanted) > spread
