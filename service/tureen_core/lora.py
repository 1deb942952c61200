"""LoRA adapters on disk: PEFT folders, read strictly, and written so that PEFT, vLLM and this reader open them.

Only a plain LoRA is ΔW = s·B·A on every token; whatever changes that is refused by name, not approximated.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
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


class SoupError(ValueError):
    """An adapter cannot be part of a soup; the message names it and says why."""


@dataclass(frozen=True)
class LoraPair:
    """One module's low-rank term: ΔW = scale · b @ a, with a ``[r, in]`` and b ``[out, r]``."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: module path in the causal model → its pair."""

    name: str
    modules: Mapping[str, LoraPair]


# --------------------------------------------------------------------------- reading


def read_adapter(folder: Path, name: str, heads: Iterable[str] = ()) -> tuple[Adapter, dict[str, Tensor]]:
    """Read a PEFT LoRA folder strictly.

    Args:
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        name: what to call the adapter.
        heads: names of modules that may stand in ``modules_to_save``; their tensors are returned apart.

    Returns:
        The adapter, and the heads' tensors by name (``score.weight``).

    Raises:
        SoupError: a file that is missing or unreadable, a kind of LoRA that is no sum of low-rank terms, an option
            that is not understood, a pair without its half, a rank that the configuration does not declare, or a
            tensor that belongs to nothing.
    """
    allowed = tuple(heads)
    config = _config(folder, name)
    _refuse(config, name, allowed)
    halves: dict[str, dict[str, Tensor]] = {}
    extras: dict[str, Tensor] = {}
    for key, tensor in _tensors(folder, name).items():
        path = key.removeprefix(PREFIX)
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", path)
        if path.split(".")[0] in allowed:
            extras[path] = tensor
        elif match and tensor.ndim == 2:
            halves.setdefault(match[1], {})[match[2]] = tensor
        else:
            raise SoupError(f"{name}: unexpected tensor {key} of shape {list(tensor.shape)}{_why(path)}")
    pairs = {path: _pair(path, half, config, name) for path, half in sorted(halves.items())}
    if not pairs:
        raise SoupError(f"{name}: the adapter holds no LoRA tensors")
    return Adapter(name, pairs), extras


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        raise SoupError(f"{name}: {folder} has no {CONFIG}") from None
    except ValueError as error:
        raise SoupError(f"{name}: {CONFIG} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise SoupError(f"{name}: {CONFIG} is not a JSON object")
    return config


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise SoupError(f"{name}: {folder} has no {WEIGHTS}; pickled weights (.bin) are not read") from None
    except SafetensorError as error:
        raise SoupError(f"{name}: {WEIGHTS} cannot be read: {error}") from None


def _why(path: str) -> str:
    whole = ".base_layer." in path or ".lora_embedding_" in path
    return ": LoRA on embeddings or on a tied output head cannot be part of a soup" if whole else ""


def _refuse(config: Mapping[str, Any], name: str, heads: Sequence[str]) -> None:
    if config.get("peft_type") != "LORA":
        raise SoupError(f"{name}: a soup is made of LoRA adapters, not of {config.get('peft_type')}")
    for key, why in REFUSED.items():
        if config.get(key):
            raise SoupError(f"{name}: {key} is set, and {why}")
    if config.get("bias", "none") != "none":
        raise SoupError(f"{name}: trained biases (bias={config['bias']!r}) cannot be concatenated")
    if config.get("init_lora_weights") not in PLAIN_INITS:
        raise SoupError(f"{name}: the initialisation {config['init_lora_weights']!r} changes the base weights")
    # PEFT lists both names of a classifier's head, whichever the model has.
    strange = set(config.get("modules_to_save") or ()) - set(heads) - (CLASSIFIERS if heads else set())
    if strange:
        raise SoupError(f"{name}: whole trained modules ({', '.join(sorted(strange))}) cannot be part of a soup")
    for key in sorted(set(config) - UNDERSTOOD - set(REFUSED)):
        if config[key]:
            raise SoupError(f"{name}: {CONFIG} sets {key}, which is not known here and may change what is computed")
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float):
            raise SoupError(f"{name}: {CONFIG} has no number {key}")


def _pair(path: str, half: Mapping[str, Tensor], config: Mapping[str, Any], name: str) -> LoraPair:
    if set(half) != {"A", "B"}:
        raise SoupError(f"{name}: {path} has lora_{''.join(half)} only")
    a, b = half["A"], half["B"]
    declared = _pattern(path, config.get("rank_pattern") or {}, config["r"])
    if not 0 < a.shape[0] == b.shape[1] == declared:
        raise SoupError(f"{name}: {path} declares rank {declared} but A is {list(a.shape)} and B is {list(b.shape)}")
    alpha = _pattern(path, config.get("alpha_pattern") or {}, config["lora_alpha"])
    rank = math.sqrt(declared) if config.get("use_rslora") else declared
    return LoraPair(a, b, alpha / rank)


def _pattern(path: str, pattern: Mapping[str, Any], default: Any) -> Any:
    """PEFT's rule: the first key that matches the end of the module path as a regular expression."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", path):
            return value
    return default


# --------------------------------------------------------------------------- writing


def write_adapter(
    adapter: Adapter,
    folder: Path,
    base: str,
    dtype: torch.dtype = torch.float32,
    extras: Mapping[str, Tensor] | None = None,
    task: str = "CAUSAL_LM",
) -> None:
    """Write an adapter as a PEFT folder that PEFT, vLLM and :func:`read_adapter` open.

    Every scale is folded into B, so ``lora_alpha`` equals the rank everywhere; ``r`` is the largest rank, which is what
    vLLM holds against its limit. ``extras`` are heads (``score.weight``), kept in
    float32 and listed in ``modules_to_save``.

    Raises:
        SoupError: the adapter adapts nothing, which no PEFT folder can say.
    """
    if not adapter.modules:
        raise SoupError(f"{adapter.name}: nothing is left of it: these weights are the bare base")
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {path: pair.rank for path, pair in adapter.modules.items()}
    largest = max(ranks.values())
    odd = {re.escape(path): rank for path, rank in ranks.items() if rank != largest}
    extras = dict(extras or {})
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
        "modules_to_save": sorted({key.split(".")[0] for key in extras}) or None,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    tensors = {PREFIX + key: tensor.float().contiguous() for key, tensor in extras.items()}
    for path, pair in adapter.modules.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = pair.a.to(dtype).contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = (pair.b.float() * pair.scale).to(dtype).contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner only, and an image's user is another


def _targets(paths: Iterable[str]) -> tuple[list[str], list[int] | None]:
    """Short names with layer numbers where they say exactly the same, as readers expect them; else whole paths."""
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
