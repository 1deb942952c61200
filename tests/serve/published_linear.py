"""Plain classifiers with a linear head, as transformers and OpenRLHF save them, and their rewards by that code."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
MEAN, STD = 0.7, 1.9
Kind = Callable[..., Any]
ScoreTalk = Callable[[Sequence[dict[str, str]]], list[float]]


def write_classifier(folder: Path, kind: Kind = LlamaConfig, rows: int = 1, tokenizer: Any = None, **more: Any) -> Path:
    """A random classifier whose logits are a few units apart."""
    torch.manual_seed(3)
    tokens = tokenizer or tiny.tokenizer()
    settings = {**SIZES, "vocab_size": len(tokens), "pad_token_id": tokens.pad_token_id, "num_labels": rows, **more}
    model = AutoModelForSequenceClassification.from_config(kind(**settings))
    with torch.no_grad():
        model.score.weight.normal_(std=0.5)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def open_class(folder: Path) -> ScoreTalk:
    """Return the checkpoint's own class, which scores a conversation as its own tokenizer renders it."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = AutoTokenizer.from_pretrained(folder)

    def score(talk: Sequence[dict[str, str]]) -> list[float]:
        ids = tokens.apply_chat_template(list(talk), return_tensors="pt", return_dict=True)
        with torch.no_grad():
            found: list[float] = model(**ids).logits[0].tolist()
        return found

    return score


def write_openrlhf(folder: Path, prefix: str, normalised: bool, **more: Any) -> Path:
    """A checkpoint of OpenRLHF, whose head has the name ``prefix``."""
    write_classifier(folder, **more)
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("score.weight")
    save_file({**weights, f"{prefix}.weight": head}, folder / "model.safetensors", metadata={"format": "pt"})
    named = {} if prefix == "score" else {"value_head_prefix": prefix}
    edit_config(folder, architectures=["RewardModel"], normalize_reward=normalised, mean=MEAN, std=STD, **named)
    return folder


def open_openrlhf(folder: Path, prefix: str, normalised: bool) -> ScoreTalk:
    """OpenRLHF's ``RewardModel`` restated: the last token, (r − mean) / std; texts end in EOS."""
    head = load_file(folder / "model.safetensors")[f"{prefix}.weight"]
    tokens, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def score(talk: Sequence[dict[str, str]]) -> list[float]:
        text = tokens.apply_chat_template(list(talk), tokenize=False).rstrip("\n")
        assert text.endswith(tokens.eos_token)
        ids = tokens(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            value = float(head @ model(ids).last_hidden_state[0, -1])
        return [(value - MEAN) / STD if normalised else value]

    return score
