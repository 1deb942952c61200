"""Tiny LoRA reward adapters in the layouts of PEFT and LLaMA-Factory, and their rewards by the merged model."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from tureen_core.base import load_tokenizer

ADAPTERS = ("current", "early", "factory")
HEAD = "base_model.model.score.weight"
RANK, ALPHA, OFFSET = 4, 12, 1.5


def write_adapter(folder: Path, base: Path, seed: int, **changes: Any) -> Path:
    """An adapter as TRL's ``RewardTrainer`` saves one, with random weights."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    options: dict[str, Any] = {
        **{"r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "down_proj"]},
        **changes,
    }
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"], **options))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "score" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    return folder


def change_tensors(folder: Path, **changes: Tensor | None) -> None:
    """Replace tensors of an adapter; None removes one."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: each for name, each in tensors.items() if each is not None}, path, {"format": "pt"})


def write_adapters(root: Path) -> dict[str, Path]:
    """Write an adapter in each layout; each names a base in a folder of its own."""
    tiny.base(root / "base")
    found = {}
    for seed, name in enumerate(ADAPTERS):
        shutil.copytree(root / "base", root / f"base-{name}")
        found[name] = write_adapter(root / name, root / f"base-{name}", seed)
    head = load_file(found["early"] / "adapter_model.safetensors")[HEAD]
    change_tensors(found["early"], **{HEAD: None, "base_model.model.score.modules_to_save.weight": head})
    head = load_file(found["factory"] / "adapter_model.safetensors")[HEAD]
    change_tensors(found["factory"], **{HEAD: None})
    own = {"v_head.summary.weight": head, "v_head.summary.bias": torch.tensor([OFFSET])}
    save_file(own, found["factory"] / "value_head.safetensors", {"format": "pt"})
    config = json.loads((found["factory"] / "adapter_config.json").read_text())
    config |= {"task_type": "CAUSAL_LM", "modules_to_save": None}
    (found["factory"] / "adapter_config.json").write_text(json.dumps(config))
    return found


def open_merged(folder: Path) -> Callable[[Sequence[dict[str, str]]], list[float]]:
    """Merge an adapter of :func:`write_adapters` into its base, and return what scores a conversation in float64."""
    base = folder.parent / "base"
    files = folder.glob("*.safetensors")
    tensors = {key: each.double() for file in files for key, each in load_file(file).items()}
    model = AutoModel.from_pretrained(base, dtype=torch.float64)
    for key, a in tensors.items():
        if ".lora_A." in key:
            path = key.removeprefix("base_model.model.model.").removesuffix(".lora_A.weight")
            model.get_submodule(path).weight.data += ALPHA / RANK * tensors[key.replace("lora_A", "lora_B")] @ a
    head = next(each for key, each in tensors.items() if "score" in key or key == "v_head.summary.weight")
    bias = OFFSET if "v_head.summary.bias" in tensors else 0.0
    tokenizer = load_tokenizer(base)

    def score(turns: Sequence[dict[str, str]]) -> list[float]:
        text = tokenizer.apply_chat_template(list(turns), tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            return (head @ model(torch.tensor([ids])).last_hidden_state[0, -1] + bias).tolist()  # type: ignore[no-any-return]

    return score
