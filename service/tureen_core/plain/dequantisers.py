"""The weight of a quantised layer in float32, computed by the library of its kind.

A kind is the ``quant_method`` of ``quantization_config`` in ``config.json``. A layer's tensors have names such as
``model.layers.0.mlp.up_proj.weight``: the name of the layer, a dot, and that of the part.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Parts = dict[str, Tensor]
Settings = Mapping[str, Any]
Read = Callable[[str, Parts], Tensor]
GPTQ_OFFSETS = {"gptq": 1, "gptq_v2": 0}  # what a zero point is above its stored value
GPTQ_BITS = (2, 4, 8)


@dataclass(frozen=True)
class Kind:
    """A kind of quantisation.

    Attributes:
        package: the Python package that must be installed, beside transformers.
        parts: the names of a quantised layer's parts, beside ``weight`` and ``bias``, as a regular expression.
        open: given a folder and its settings, returns a function that computes a layer's weight ``[out, in]`` in
            float32 from the name of the layer and its parts. Both raise ValueError for what they cannot read.
        dequantising: the name of the class of transformers whose ``dequantize=True`` makes it dequantise such a folder
            while it loads; empty if the loaded model is dequantised afterwards, None if the pinned one cannot.
    """

    package: str
    parts: str
    open: Callable[[Path, Settings], Read]
    dequantising: str | None

    def is_installed(self) -> bool:
        """Tell whether its package is installed."""
        return importlib.util.find_spec(self.package) is not None


def _open_bitsandbytes(folder: Path, settings: Settings) -> Read:  # noqa: ARG001
    from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant

    def read(layer: str, parts: Parts) -> Tensor:  # noqa: ARG001
        codes = parts.pop("weight")
        if "SCB" in parts:
            if int(parts.get("weight_format", torch.tensor(0))):
                raise ValueError("its weight_format is the order of a GPU's tiles; save it again with a newer version")
            weight: Tensor = int8_vectorwise_dequant(codes, parts["SCB"])
            return weight
        state = QuantState.from_dict({name.removeprefix("weight."): each for name, each in parts.items()}, codes.device)
        found: Tensor = dequantize_4bit(codes, state).float()
        return found

    return read


def _open_fp8(folder: Path, settings: Settings) -> Read:  # noqa: ARG001
    """FP8 with a scale for each block of a weight, as DeepSeek-V3 (arXiv 2412.19437, section 3.3) and Qwen3 have."""
    from compressed_tensors.entrypoints.convert.converters import FP8BlockDequantizer

    block = settings.get("weight_block_size")
    if not isinstance(block, list) or len(block) != 2:
        raise ValueError(f"weight_block_size is {block}; only two sizes, as [128, 128], are read")
    library = FP8BlockDequantizer(weight_block_size=tuple(block), dtype=torch.float32)

    def read(layer: str, parts: Parts) -> Tensor:
        rows, columns = parts["weight"].shape
        wanted = [-(-rows // block[0]), -(-columns // block[1])]
        if list(parts["weight_scale_inv"].shape) != wanted:
            raise ValueError(f"weight_scale_inv is {list(parts['weight_scale_inv'].shape)}, and must be {wanted}")
        named = {f"{layer}.{part}": parts[part] for part in ("weight", "weight_scale_inv")}
        weight: Tensor = library.process(named)[f"{layer}.weight"]
        return weight

    return read


def _name_parts(layer: str, parts: Parts) -> Parts:
    """Name the parts of a layer in full. Scales of 16 bits become float32, so that no product is rounded."""
    short = (torch.float16, torch.bfloat16)
    return {f"{layer}.{part}": each.float() if each.dtype in short else each for part, each in parts.items()}


def _open_compressed(folder: Path, settings: Settings) -> Read:
    from compressed_tensors.entrypoints.convert.converters import CompressedTensorsDequantizer

    sparsity = settings.get("sparsity_config") or {}
    if settings.get("transform_config") or sparsity.get("format", "dense") != "dense":
        raise ValueError("its weights are sparse or transformed (sparsity_config, transform_config)")
    library = CompressedTensorsDequantizer(folder, dtype=torch.float32)

    def read(layer: str, parts: Parts) -> Tensor:
        found = library.process(_name_parts(layer, parts))
        weight: Tensor | None = found.get(f"{layer}.weight")
        if weight is None or weight.dtype != torch.float32:
            raise ValueError("no group of `config_groups` names it")
        return weight

    return read


def _open_awq(folder: Path, settings: Settings) -> Read:  # noqa: ARG001
    """AWQ (arXiv 2306.00978) in AutoAWQ's layout ``gemm``."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

    libraries = {
        zeros: AutoAWQConverter.from_autoawq_config({**settings, "zero_point": zeros}) for zeros in (True, False)
    }

    def read(layer: str, parts: Parts) -> Tensor:
        library = libraries["qzeros" in parts]  # what is stored counts, whatever `zero_point` says
        scheme = library.create_config().config_groups["config_group_0"]
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        named = _name_parts(layer, parts)
        library.validate(named)
        packed = {name.removeprefix(f"{layer}."): each for name, each in library.process(named).items()}
        weight: Tensor = compressor.decompress(packed, scheme)["weight"]
        return weight

    return read


def _open_gptq(folder: Path, settings: Settings) -> Read:  # noqa: ARG001
    """GPTQ (arXiv 2210.17323) as AutoGPTQ and GPTQModel store it: ``(code - zero[g_idx]) * scale[g_idx]``.

    ``qweight [in * bits / 32, out]`` is packed along the inputs, and ``qzeros [groups, out * bits / 32]`` along the
    outputs.
    """
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    bits, layout = settings.get("bits"), settings.get("checkpoint_format", "gptq")
    if bits not in GPTQ_BITS or layout not in GPTQ_OFFSETS or settings.get("dynamic"):
        raise ValueError(
            f"bits is {bits} and checkpoint_format {layout!r}; read are bits of {GPTQ_BITS} and {list(GPTQ_OFFSETS)}, "
            "without `dynamic`"
        )

    def read(layer: str, parts: Parts) -> Tensor:  # noqa: ARG001
        codes, scales, places = parts["qweight"].T.contiguous(), parts["scales"], parts["g_idx"].long()
        shape = torch.Size([codes.shape[0], len(places)])
        weight = unpack_from_int32(codes, bits, shape).int()  # both are stored less half their range
        zeros = unpack_from_int32(parts["qzeros"], bits, scales.shape, packed_dim=1).int() + 2 ** (bits - 1)
        zeros = (zeros + GPTQ_OFFSETS[layout]) % 2**bits - 2 ** (bits - 1)
        found: Tensor = (weight - zeros.T[:, places]) * scales.float().T[:, places]
        return found

    return read


_PACKED = r"qweight|qzeros|scales|g_idx"
KINDS = {
    "bitsandbytes": Kind("bitsandbytes", r"weight\.[A-Za-z0-9_.]+|SCB|weight_format", _open_bitsandbytes, ""),
    "fp8": Kind("compressed_tensors", "weight_scale_inv|activation_scale", _open_fp8, "FineGrainedFP8Config"),
    "compressed-tensors": Kind(
        "compressed_tensors",
        r"weight_\w+|(?:input|output)_(?:scale|zero_point|global_scale|g_idx)",
        _open_compressed,
        "CompressedTensorsConfig",
    ),
    "awq": Kind("compressed_tensors", _PACKED, _open_awq, None),
    "gptq": Kind("compressed_tensors", _PACKED, _open_gptq, None),
}
