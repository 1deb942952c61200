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
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tureen_core.lora import Adapter, LoraPair, SoupError, read_adapter, write_adapter

Semantics = Literal["delta", "factor"]

__all__ = [
    "Adapter",
    "LoraPair",
    "Semantics",
    "Slab",
    "SoupError",
    "Stack",
    "concatenate_adapters",
    "pad_ranks",
    "compute_delta",
    "merge_adapter",
    "merge_checkpoint",
    "apply_gate",
    "read_adapter",
    "spread_weights",
    "write_adapter",
]


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

    @property
    def widest(self) -> tuple[int, ...]:
        """Each expert's largest rank; 0 for one that adapts nothing."""
        slabs = self.modules.values()
        return tuple(max((slab.ranks[expert] for slab in slabs), default=0) for expert in range(len(self.names)))

    def find_factor_obstacle(self) -> str | None:
        """None if ``factor`` semantics are defined, else the reason they are not."""
        for path, slab in self.modules.items():
            if len(set(slab.ranks)) > 1 or len(set(slab.scales)) > 1:
                unequal = f"{path} has ranks {slab.ranks} and scales {slab.scales}"
                return f"averaging factors needs equal ranks and scales, and {unequal}"
        return None


# --------------------------------------------------------------------------- the algebra


def concatenate_adapters(adapters: Sequence[Adapter]) -> Stack:
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


def pad_ranks(stack: Stack) -> Stack:
    """The same stack with one layout of ranks for all modules, so that one gate row fits every module.

    Each expert gets the largest rank that it has anywhere; where it has less, zeros fill A and B, which change nothing.
    """
    return Stack(stack.names, {path: _widened(slab, stack.widest) for path, slab in stack.modules.items()})


def _widened(slab: Slab, ranks: Sequence[int]) -> Slab:
    if slab.ranks == tuple(ranks):
        return slab
    a = slab.a.new_zeros(sum(ranks), slab.a.shape[1])
    b = slab.b.new_zeros(slab.b.shape[0], sum(ranks))
    places = [start + offset for start, own in zip(_starts(ranks), slab.ranks, strict=True) for offset in range(own)]
    a[places], b[:, places] = slab.a, slab.b
    return Slab(a, b, tuple(ranks), slab.scales)


def _starts(ranks: Sequence[int]) -> list[int]:
    return [sum(ranks[:expert]) for expert in range(len(ranks))]


def spread_weights(weights: Tensor, ranks: Sequence[int]) -> Tensor:
    """Spread expert weights ``[..., k]`` over their ranks: the gate ``[..., R]``."""
    repeats = torch.tensor(ranks, device=weights.device)
    return weights.repeat_interleave(repeats, dim=-1, output_size=sum(ranks))


def apply_gate(h: Tensor, row: Tensor, ranks: Sequence[int], semantics: Semantics = "delta") -> Tensor:
    """Apply a gate to rank activations.

    Args:
        h: ``[..., R]``, A_cat's output.
        row: ``[..., k]`` expert weights, broadcast against ``h`` without its last axis.
        ranks: each expert's share of R; all equal for ``factor``.
        semantics: ``delta`` multiplies; ``factor`` gives h'ᵢ = wᵢ · Σⱼ wⱼhⱼ.

    Returns:
        ``[..., R]``, what B_cat multiplies.

    Raises:
        SoupError: ``factor`` with unequal ranks.
    """
    if semantics == "delta":
        return h * spread_weights(row, ranks)
    if len(set(ranks)) > 1:
        raise SoupError(f"averaging factors needs equal ranks, not {tuple(ranks)}")
    parts = h.unflatten(-1, (len(ranks), ranks[0]))
    pooled = (parts * row.unsqueeze(-1)).sum(-2, keepdim=True)
    mixed: Tensor = (pooled * row.unsqueeze(-1)).flatten(-2)
    return mixed


def compute_delta(slab: Slab, row: Sequence[float], semantics: Semantics = "delta") -> Tensor:
    """ΔW ``[out, in]`` of one module in float32, as a merge would add it.

    Raises:
        SoupError: ``factor`` with unequal ranks or scales.
    """
    if semantics == "factor" and len(set(slab.scales)) > 1:
        raise SoupError(f"averaging factors needs equal scales, not {slab.scales}")
    weights = torch.tensor(row, dtype=torch.float32)
    return slab.b @ apply_gate(slab.a.T, weights, slab.ranks, semantics).T


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
    reason = stack.find_factor_obstacle()
    if reason:
        raise SoupError(reason)


def _delta_pair(slab: Slab, row: Sequence[float]) -> LoraPair:
    gate = spread_weights(torch.tensor(row), slab.ranks)
    keep = gate != 0
    return LoraPair(slab.a[keep], (slab.b * gate)[:, keep], 1.0)


def _factor_pair(slab: Slab, row: Sequence[float]) -> LoraPair:
    weights = torch.tensor(row)
    experts = len(slab.ranks)
    a = (slab.a.unflatten(0, (experts, -1)) * weights[:, None, None]).sum(0)
    b = (slab.b.unflatten(1, (experts, -1)) * weights[None, :, None]).sum(1)
    return LoraPair(a, b, 1.0)


# --------------------------------------------------------------------------- a full checkpoint


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
        out: a folder without weights; nothing is written to it unless the base fits.
        dtype: of the result; the base's own by default. bfloat16 loses small deltas; float32 does not.

    Raises:
        SoupError: the base lacks an adapted module or has it in another shape, ``out`` holds weights already, or
            ``factor`` is not defined.
    """
    if semantics == "factor":
        _need_factors(stack)
    row = stack.row(weights)
    _check_base(base, stack)
    if any(out.glob("*.safetensors")):
        raise SoupError(f"{out} holds weights already: choose an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    for source in sorted(base.iterdir()):
        if source.suffix == ".safetensors":
            tensors = _merged_shard(source, stack, row, semantics, dtype)
            save_file(tensors, out / source.name, metadata={"format": "pt"})
        elif source.is_file() and source.suffix not in {".bin", ".pt", ".gguf"}:
            shutil.copyfile(source, out / source.name)
    if dtype is not None:
        _declare(dtype, out / "config.json")


def _check_base(base: Path, stack: Stack) -> None:
    shapes: dict[str, list[int]] = {}
    for path in base.glob("*.safetensors"):
        with safe_open(path, framework="pt") as shard:
            shapes |= {key: shard.get_slice(key).get_shape() for key in shard.keys()}  # noqa: SIM118
    for module, slab in stack.modules.items():
        wanted, found = [slab.b.shape[0], slab.a.shape[1]], shapes.get(f"{module}.weight")
        if found is None:
            raise SoupError(f"{base} has no weight for {module}: it is tied, or these experts stand on another base")
        if found != wanted:
            raise SoupError(f"{base} has {module} as {found} and the experts adapt {wanted}: it is another base")


def _declare(dtype: torch.dtype, path: Path) -> None:
    config = json.loads(path.read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n")


def _merged_shard(
    source: Path, stack: Stack, row: Sequence[float], semantics: Semantics, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(source, framework="pt") as shard:
        for key in shard.keys():  # noqa: SIM118  (a safetensors handle is no mapping)
            tensor = shard.get_tensor(key)
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            slab = stack.modules.get(key.removesuffix(".weight"))
            if slab is not None:
                tensor = tensor.float() + compute_delta(slab, row, semantics)
            tensors[key] = tensor.to(wanted).contiguous()
    return tensors
