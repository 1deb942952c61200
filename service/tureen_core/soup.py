"""The algebra of soups: several LoRA adapters of one base as one, weighed in rank space.

With k experts, stack their A on the rank axis and fold each scale s into B. Then

    Σ wᵢ·sᵢ·Bᵢ·Aᵢ  =  B_cat · diag(gate) · A_cat,        gate = w spread over each expert's ranks,

so that a soup costs a multiply by the gate and nothing is merged to serve it. Two semantics:

* ``delta``: the sum above, linear in w (Ilharco et al., arXiv 2212.04089; Rewarded Soups, 2306.04488, on weights);
* ``factor``: A and B averaged separately, ΔW = s·(Σ wᵢBᵢ)(Σ wⱼAⱼ), what the released code of Personalized Soups
  (2310.11564) and of Rewarded Soups computes on adapters. It has cross terms BᵢAⱼ and is quadratic in w.

Shapes: A is ``[r, in]``, B is ``[out, r]``, both as PEFT stores them. R = Σ rᵢ.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

Semantics = Literal["delta", "factor"]

PREFIX = "base_model.model."
PLAIN_INITS = (None, True, False, "gaussian", "orthogonal")
REFUSED = {
    "use_dora": "DoRA rescales the merged weight, so it is not a sum of low-rank terms",
    "lora_bias": "a bias on B is not in rank space",
    "use_bdlora": "block-diagonal LoRA has another layout",
    "use_qalora": "QA-LoRA pools its input",
    "alora_invocation_tokens": "an activated LoRA applies to part of the text only",
    "target_parameters": "LoRA on bare parameters (MoE experts) cannot be gated",
    "trainable_token_indices": "trained token embeddings cannot be concatenated",
    "layer_replication": "replicated layers change the base",
    "fan_in_fan_out": "transposed weights (Conv1D) are not supported",
    "megatron_config": "tensor-parallel adapters must be gathered first",
}


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


@dataclass(frozen=True)
class Slab:
    """One module's concatenated pairs: a ``[R, in]``, b ``[out, R]`` with every scale folded in, float32.

    ``ranks[i]`` is expert i's share of R; 0 where it does not adapt the module.
    """

    a: Tensor
    b: Tensor
    ranks: tuple[int, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Stack:
    """Experts of one base, concatenated: their names in gate order, and a slab for each adapted module."""

    names: tuple[str, ...]
    modules: Mapping[str, Slab]

    def row(self, weights: Mapping[str, float]) -> list[float]:
        """Weights in gate order, 0 for experts not named.

        Raises:
            SoupError: a weight names no expert.
        """
        unknown = set(weights) - set(self.names)
        if unknown:
            raise SoupError(f"no expert is called {sorted(unknown)[0]!r}; there are {', '.join(self.names)}")
        return [weights.get(name, 0.0) for name in self.names]

    def factorable(self) -> str | None:
        """None if ``factor`` semantics are defined, else the reason they are not."""
        for path, slab in self.modules.items():
            if len(set(slab.ranks)) > 1 or len(set(slab.scales)) > 1:
                unequal = f"{path} has ranks {slab.ranks} and scales {slab.scales}"
                return f"averaging factors needs equal ranks and scales, and {unequal}"
        return None


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
        SoupError: a kind of LoRA that is no sum of low-rank terms, a pair without its half, a rank that the
            configuration does not declare, or a tensor that belongs to nothing.
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    allowed = tuple(heads)
    _refuse(config, name, allowed)
    halves: dict[str, dict[str, Tensor]] = {}
    extras: dict[str, Tensor] = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        path = key.removeprefix(PREFIX)
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", path)
        if match and tensor.ndim == 2:
            halves.setdefault(match[1], {})[match[2]] = tensor
        elif path.split(".")[0] in allowed:
            extras[path] = tensor
        else:
            raise SoupError(f"{name}: unexpected tensor {key} of shape {list(tensor.shape)}")
    pairs = {path: _pair(path, half, config, name) for path, half in sorted(halves.items())}
    if not pairs:
        raise SoupError(f"{name}: the adapter holds no LoRA tensors")
    return Adapter(name, pairs), extras


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
    strange = set(config.get("modules_to_save") or ()) - set(heads)
    if strange:
        raise SoupError(f"{name}: whole trained modules ({', '.join(sorted(strange))}) cannot be part of a soup")


def _pair(path: str, half: Mapping[str, Tensor], config: Mapping[str, Any], name: str) -> LoraPair:
    if set(half) != {"A", "B"}:
        raise SoupError(f"{name}: {path} has lora_{''.join(half)} only")
    a, b = half["A"], half["B"]
    declared = _pattern(path, config.get("rank_pattern") or {}, config["r"])
    if not a.shape[0] == b.shape[1] == declared:
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


# --------------------------------------------------------------------------- the algebra


def concatenate(adapters: Sequence[Adapter]) -> Stack:
    """Stack adapters on the rank axis; a module that one does not adapt has rank 0 there.

    Raises:
        SoupError: two have one name, or their shapes belong to different bases.
    """
    names = tuple(adapter.name for adapter in adapters)
    if len(set(names)) < len(names):
        raise SoupError(f"two experts have one name: {', '.join(names)}")
    paths = sorted({path for adapter in adapters for path in adapter.modules})
    return Stack(names, {path: _slab(path, [adapter.modules.get(path) for adapter in adapters]) for path in paths})


def _slab(path: str, pairs: Sequence[LoraPair | None]) -> Slab:
    present = [pair for pair in pairs if pair is not None]
    shapes = {(pair.a.shape[1], pair.b.shape[0]) for pair in present}
    if len(shapes) > 1:
        raise SoupError(f"the experts adapt {path} as layers of different shapes (in, out): {sorted(shapes)}")
    return Slab(
        a=torch.cat([pair.a.float() for pair in present]),
        b=torch.cat([pair.b.float() * pair.scale for pair in present], dim=1),
        ranks=tuple(pair.rank if pair else 0 for pair in pairs),
        scales=tuple(pair.scale if pair else 0.0 for pair in pairs),
    )


def spread(weights: Tensor, ranks: Sequence[int]) -> Tensor:
    """Spread expert weights ``[..., k]`` over their ranks: the gate ``[..., R]``."""
    return weights.repeat_interleave(torch.tensor(ranks, device=weights.device), dim=-1)


def mix(h: Tensor, row: Tensor, ranks: Sequence[int], semantics: Semantics = "delta") -> Tensor:
    """Apply a gate to rank activations.

    Args:
        h: ``[..., R]``, A_cat's output.
        row: ``[..., k]`` expert weights, broadcast against ``h`` without its last axis.
        ranks: each expert's share of R; all equal for ``factor``.
        semantics: ``delta`` multiplies; ``factor`` gives h'ᵢ = wᵢ · Σⱼ wⱼhⱼ.

    Returns:
        ``[..., R]``, what B_cat multiplies.
    """
    if semantics == "delta":
        return h * spread(row, ranks)
    parts = h.unflatten(-1, (len(ranks), ranks[0]))
    pooled = (parts * row.unsqueeze(-1)).sum(-2, keepdim=True)
    mixed: Tensor = (pooled * row.unsqueeze(-1)).flatten(-2)
    return mixed


def explicit(slab: Slab, row: Sequence[float], semantics: Semantics = "delta") -> Tensor:
    """ΔW ``[out, in]`` of one module in float32, as a merge would add it."""
    weights = torch.tensor(row, dtype=torch.float32)
    return slab.b @ mix(slab.a.T, weights, slab.ranks, semantics).T


def merge_adapter(stack: Stack, weights: Mapping[str, float], name: str, semantics: Semantics = "delta") -> Adapter:
    """The soup as one ordinary LoRA: rank Σ rᵢ of the experts that weigh (delta), or r (factor).

    Raises:
        SoupError: ``factor`` is not defined for these experts.
    """
    row = stack.row(weights)
    if semantics == "factor":
        _need_factors(stack)
        return Adapter(name, {path: _factor_pair(slab, row) for path, slab in stack.modules.items()})
    pairs = {path: _delta_pair(slab, row) for path, slab in stack.modules.items()}
    return Adapter(name, {path: pair for path, pair in pairs.items() if pair.rank})


def _need_factors(stack: Stack) -> None:
    reason = stack.factorable()
    if reason:
        raise SoupError(reason)


def _delta_pair(slab: Slab, row: Sequence[float]) -> LoraPair:
    gate = spread(torch.tensor(row), slab.ranks)
    keep = gate != 0
    return LoraPair(slab.a[keep], (slab.b * gate)[:, keep], 1.0)


def _factor_pair(slab: Slab, row: Sequence[float]) -> LoraPair:
    weights = torch.tensor(row)
    experts = len(slab.ranks)
    a = (slab.a.unflatten(0, (experts, -1)) * weights[:, None, None]).sum(0)
    b = (slab.b.unflatten(1, (experts, -1)) * weights[None, :, None]).sum(1)
    return LoraPair(a, b, 1.0)


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

    Every scale is folded into B, so ``lora_alpha`` equals the rank. ``extras`` are heads (``score.weight``), kept in
    float32 and listed in ``modules_to_save``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {path: pair.rank for path, pair in adapter.modules.items()}
    common = max(set(ranks.values()), key=lambda r: sum(1 for rank in ranks.values() if rank == r))
    odd = {path: rank for path, rank in ranks.items() if rank != common}
    extras = dict(extras or {})
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": common,
        "lora_alpha": common,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": _targets(ranks),
        "rank_pattern": {re.escape(path): rank for path, rank in odd.items()},
        "alpha_pattern": {re.escape(path): rank for path, rank in odd.items()},
        "modules_to_save": sorted({key.split(".")[0] for key in extras}) or None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {PREFIX + key: tensor.float().contiguous() for key, tensor in extras.items()}
    for path, pair in adapter.modules.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = pair.a.to(dtype).contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = (pair.b.float() * pair.scale).to(dtype).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _targets(ranks: Mapping[str, int]) -> list[str]:
    """Short module names where they say the same, since vLLM and readers expect them; else whole paths."""
    short = sorted({path.rsplit(".", 1)[-1] for path in ranks})
    layers = {re.sub(r"\.\d+\.", ".*.", path) for path in ranks}
    return short if len(layers) == len(short) else sorted(ranks)


def merge_checkpoint(
    base: Path,
    stack: Stack,
    weights: Mapping[str, float],
    out: Path,
    semantics: Semantics = "delta",
    dtype: torch.dtype | None = None,
) -> None:
    """Write the soup as a full checkpoint: base + ΔW, summed in float32, cast once at the end.

    Args:
        base: a Hugging Face folder with safetensors.
        dtype: of the result; the base's own by default. bfloat16 loses small deltas; float32 does not.

    Raises:
        SoupError: the base lacks an adapted module, or ``factor`` is not defined.
    """
    if semantics == "factor":
        _need_factors(stack)
    row, left = stack.row(weights), set(stack.modules)
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted(base.iterdir()):
        if source.suffix == ".safetensors":
            tensors = _merged_shard(source, stack, row, semantics, dtype)
            left -= {key.removesuffix(".weight") for key in tensors}
            save_file(tensors, out / source.name, metadata={"format": "pt"})
        elif source.is_file() and source.suffix not in {".bin", ".pt", ".gguf"}:
            shutil.copyfile(source, out / source.name)
    if left:
        raise SoupError(f"{base} has no weight for {sorted(left)[0]}: these experts stand on another base")
    if dtype is not None:
        config = json.loads((out / "config.json").read_text())
        config["dtype"] = str(dtype).removeprefix("torch.")
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _merged_shard(
    source: Path, stack: Stack, row: Sequence[float], semantics: Semantics, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(source, framework="pt") as shard:
        for key in shard.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
            tensor = shard.get_tensor(key)
            wanted = dtype or tensor.dtype
            slab = stack.modules.get(key.removesuffix(".weight"))
            if slab is not None:
                tensor = tensor.float() + explicit(slab, row, semantics)
            tensors[key] = tensor.to(wanted).contiguous()
    return tensors
