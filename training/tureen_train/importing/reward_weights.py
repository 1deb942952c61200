"""Write the weights of a plain reward model as an artifact has them: only what serving reads, byte for byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tureen_core.adapter_files import write_adapter
from tureen_core.artifact import HEAD, HEAD_FILE, Artifact, PlainParts, read_weights
from tureen_core.gate import write_gate
from tureen_core.head_rule import HeadRule

MERGE = "merge the adapter into its base (PEFT's merge_and_unload), and import the whole model"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def write_full_weights(artifact: Artifact, parts: PlainParts, out: Path) -> HeadRule:
    """Write a model's backbone, head, gate and tokenizer.

    The head stays in the checkpoint where transformers' class for sequence classification finds it there, or computes
    the rewards itself. Elsewhere its layers are written to ``head.safetensors``.

    Returns:
        The rule of the head as it was written.

    Raises:
        ValueError: a weight is missing.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    rule = artifact.manifest.head
    whole, found = _open_empty(AutoModelForSequenceClassification if rule.kind != "layers" else AutoModel, artifact)
    if rule.kind == "linear" and found["missing_keys"]:
        rule = rule.model_copy(update={"kind": "layers"})
        whole, found = _open_empty(AutoModel, artifact)
    if missing := sorted(map(str, found["missing_keys"])):
        raise ValueError(f"{artifact.folder.name}: the weight {missing[0]} is missing; copy or save the model again")
    _copy_weights(artifact.folder, out, {str(key) for key in found["unexpected_keys"]})
    _write_config(artifact.folder, out, type(whole).__name__)
    if rule.kind == "layers":
        assert parts.head is not None  # only a class of its own has none
        save_file({key: each.contiguous() for key, each in parts.head.list_tensors().items()}, out / HEAD_FILE)
    if parts.gate is not None:
        write_gate(parts.gate, out)
    parts.tokenizer.save_pretrained(out)
    return rule


def write_adapter_weights(artifact: Artifact, parts: PlainParts, out: Path) -> HeadRule:
    """Write a LoRA adapter and its linear head. The tokenizer is the base's.

    Returns:
        The rule of the head.

    Raises:
        ArtifactError: a value is not finite.
        ValueError: the head has a bias or more layers, or a gate is beside it.
    """
    base, tensors = artifact.manifest.base, parts.head.list_tensors() if parts.head is not None else {}
    if base is None or set(tensors) != {"0.weight"} or parts.gate or artifact.manifest.head.output != "value":
        raise ValueError(f"{artifact.name}: its head is more than linear without a bias; {MERGE}")
    adapter, _ = read_weights(artifact)
    heads = {f"{HEAD}.weight": tensors["0.weight"].contiguous()}
    write_adapter(adapter, out, base.model, torch.float32, heads, task="SEQ_CLS")
    return HeadRule()


def _open_empty(opener: Any, artifact: Artifact) -> tuple[Any, dict[str, Any]]:
    """Open a model without its weights; tell which of them it lacks and which it does not read."""
    model, found = opener.from_pretrained(
        artifact.folder,
        device_map="meta",
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    return model, found


def _copy_weights(folder: Path, out: Path, dropped: set[str]) -> None:
    """Copy the files of the weights, without the tensors of these names."""
    index = folder / INDEX
    content = json.loads(index.read_bytes()) if index.is_file() else {"weight_map": {}}
    names = sorted(set(content["weight_map"].values())) or [SINGLE]
    for name in names:
        with safe_open(folder / name, framework="pt") as shard:
            keys = set(shard.keys())
            if keys.isdisjoint(dropped):
                shutil.copyfile(folder / name, out / name)
            elif kept := sorted(keys - dropped):
                save_file({key: shard.get_tensor(key) for key in kept}, out / name, metadata={"format": "pt"})
    if index.is_file():
        content["weight_map"] = {key: file for key, file in content["weight_map"].items() if key not in dropped}
        (out / INDEX).write_text(json.dumps(content, indent=1) + "\n")


def _write_config(folder: Path, out: Path, architecture: str) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["architectures"] = [architecture]
    config.pop("auto_map", None)  # it names code that is never run
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
