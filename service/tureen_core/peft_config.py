"""``adapter_config.json`` of a PEFT LoRA folder: read strictly, and written so that PEFT and vLLM open it.

A soup needs plain LoRAs, where ΔW = s·B·A on every token. An option that changes this is an error that names it.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tureen_core.lora import SoupError

CONFIG = "adapter_config.json"
PLAIN_INITS = (None, True, False, "gaussian", "orthogonal", "eva", "mica")
REFUSED = {
    "use_dora": "DoRA rescales the merged weight, so it is not a sum of low-rank terms",
    "lora_bias": "a bias on B is not in rank space",
    "use_bdlora": "block-diagonal LoRA has another layout",
    "use_qalora": "QA-LoRA pools its input",
    "kasa_config": "KaSA truncates the base weight and scales every rank",
    "arrow_config": "Arrow routes each token to other adapters",
    "monteclora_config": "MonteCLoRA keeps a sampler beside A and B",
    "velora_config": "VeLoRA keeps a projection beside A and B",
    "alora_invocation_tokens": "an activated LoRA applies to part of the text only",
    "target_parameters": "LoRA on bare parameters (MoE experts) cannot be gated",
    "trainable_token_indices": "trained token embeddings cannot be concatenated",
    "layer_replication": "replicated layers change the base",
    "fan_in_fan_out": "transposed weights (Conv1D) are not supported",
    "megatron_config": "tensor-parallel adapters must be gathered first",
}
UNDERSTOOD = {
    "peft_type",
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "runtime_config",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "lora_dropout",
    "bias",
    "init_lora_weights",
    "modules_to_save",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "ensure_weight_tying",
    "megatron_core",
    "qalora_group_size",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
}
CLASSIFIERS = {"classifier", "score"}


def read_config(folder: Path, name: str, heads: Sequence[str] | None) -> dict[str, Any]:
    """Read the configuration of a plain LoRA.

    Args:
        name: the adapter's name in errors.
        heads: modules that ``modules_to_save`` may name; None if it may name any.

    Raises:
        SoupError: the file is missing or not a JSON object; it is not of a LoRA; or it sets an option that is unknown
            or makes ΔW something else than s·B·A.
    """
    config = load_config(folder, name)
    check_plain(config, name, heads)
    return config


def find_rank(config: Mapping[str, Any], path: str) -> int:
    """Find the rank that a configuration declares for a module."""
    rank: int = _pattern(path, config.get("rank_pattern") or {}, config["r"])
    return rank


def find_scale(config: Mapping[str, Any], path: str) -> float:
    """Find the scale of a module's B·A: α / r, or α / √r for rsLoRA (arXiv 2312.03732)."""
    alpha = _pattern(path, config.get("alpha_pattern") or {}, config["lora_alpha"])
    rank = find_rank(config, path)
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def write_config(folder: Path, ranks: Mapping[str, int], base: str, task: str, saved: Sequence[str]) -> None:
    """Write the configuration of a LoRA whose scale is 1 everywhere.

    Args:
        ranks: module path → rank. ``r`` becomes the largest one, which vLLM compares with its limit.
        base: the base model's name or folder.
        task: PEFT's ``task_type``.
        saved: names of the modules whose whole weights are saved with the adapter.
    """
    largest = max(ranks.values())
    odd = {re.escape(path): rank for path, rank in ranks.items() if rank != largest}
    targets, layers = _targets(ranks)
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": largest,
        "lora_alpha": largest,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": targets,
        "layers_to_transform": layers,
        "rank_pattern": odd,
        "alpha_pattern": odd,
        "modules_to_save": list(saved) or None,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def load_config(folder: Path, name: str) -> dict[str, Any]:
    """Load the configuration of any PEFT adapter.

    Raises:
        SoupError: the file is missing or not a JSON object.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise SoupError(f"{name}: {folder} has no {CONFIG}; give the folder that PEFT saved") from None
    except ValueError as error:
        raise SoupError(f"{name}: {CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise SoupError(f"{name}: {CONFIG} is not a JSON object")
    return config


def check_plain(config: Mapping[str, Any], name: str, heads: Sequence[str] | None) -> None:
    """Refuse a configuration that is not a plain LoRA's; see :func:`read_config`.

    Raises:
        SoupError: the message names the option.
    """
    if config.get("peft_type") != "LORA":
        raise SoupError(f"{name}: a soup is made of LoRA adapters, not of {config.get('peft_type')}")
    for key, why in REFUSED.items():
        if config.get(key):
            raise SoupError(f"{name}: {key} is set, and {why}")
    if config.get("bias", "none") != "none":
        raise SoupError(f"{name}: trained biases (bias={config['bias']!r}) cannot be concatenated")
    if config.get("init_lora_weights") not in PLAIN_INITS:
        raise SoupError(
            f"{name}: the initialisation {config['init_lora_weights']!r} changes the base weights; save it again with "
            "PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )
    if heads is not None:
        _check_saved_modules(config, name, heads)
    for key in sorted(set(config) - UNDERSTOOD - set(REFUSED)):
        if config[key]:
            raise SoupError(f"{name}: {CONFIG} sets {key}, which is not known here and may change what is computed")
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float):
            raise SoupError(f"{name}: {CONFIG} has no number {key}")


def _check_saved_modules(config: Mapping[str, Any], name: str, heads: Sequence[str]) -> None:
    # PEFT lists both names of a classifier's head, although the model has only one of them
    strange = set(config.get("modules_to_save") or ()) - set(heads) - (CLASSIFIERS if heads else set())
    if strange:
        raise SoupError(f"{name}: whole trained modules ({', '.join(sorted(strange))}) cannot be part of a soup")


def _pattern(path: str, pattern: Mapping[str, Any], default: Any) -> Any:
    """Find a module's value as PEFT does: the first key that matches the end of its path as a regular expression."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return default


def _targets(paths: Iterable[str]) -> tuple[list[str], list[int] | None]:
    """Name the adapted modules: last names and layer numbers if these name exactly the same modules; else whole paths.

    Other libraries expect the short form.
    """
    layers: dict[tuple[str, str], set[int]] = {}
    for path in paths:
        match = re.fullmatch(r"(.+\.[^.]+)\.(\d+)\.(.+)", path)
        if match is None or re.search(r"\.\d+\.", f".{match[1]}."):
            return sorted(paths), None
        layers.setdefault((match[1], match[3]), set()).add(int(match[2]))
    short = {inner.rsplit(".", 1)[-1] for _, inner in layers}
    numbers = next(iter(layers.values()))
    if len(short) < len(layers) or any(found != numbers for found in layers.values()):
        return sorted(paths), None
    return sorted(short), sorted(numbers)
