"""Tiny quantised reward models: by the libraries that write them, or packed as their published code packs."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, LlamaConfig

GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # AutoAWQ's WQLinear_GEMM.from_linear
Layer = tuple[dict[str, Tensor], Tensor]  # the stored parts of a layer, and its weight in float64


def write_plain(folder: Path, labels: int = 1, inner: int = 128, **config: Any) -> Path:
    """Write a random Llama for sequence classification, whose sizes are multiples of 32."""
    torch.manual_seed(7)
    tokens = tiny.tokenizer()
    settings = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        num_labels=labels,
        pad_token_id=tokens.pad_token_id,
        eos_token_id=tokens.eos_token_id,
        **config,
    )
    AutoModelForSequenceClassification.from_config(settings).float().save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def quantise_by_bitsandbytes(source: Path, folder: Path, **settings: Any) -> Path:
    """Quantise a model by bitsandbytes, and save it with transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(
        source, dtype=torch.float32, quantization_config=BitsAndBytesConfig(**settings)
    )
    shutil.copytree(source, folder)
    model.save_pretrained(folder)
    return folder


def quantise_by_compressed_tensors(source: Path, folder: Path, **scheme: Any) -> Path:
    """Quantise the linear layers of a model by compressed-tensors, rounded to the nearest code, and save it."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams

    model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32)
    groups = {"all": QuantizationScheme(targets=["Linear"], **scheme)}
    settings = QuantizationConfig(config_groups=groups, ignore=["score"], quant_method="compressed-tensors")
    apply_quantization_config(model, settings)
    for module in model.modules():
        weights = getattr(getattr(module, "quantization_scheme", None), "weights", None)
        if weights is not None:
            grouped = module.weight.detach().unflatten(1, (-1, weights.group_size or module.weight.shape[1]))
            scale, zero = calculate_qparams(grouped.amin(-1), grouped.amax(-1), weights)
            module.weight_scale.data.copy_(scale)
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data.copy_(zero)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    shutil.copytree(source, folder)
    tensors = {name: each.contiguous() for name, each in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    compressor.update_config(folder)
    return folder


def quantise_layers(source: Path, folder: Path, pack: Callable[[Tensor], Layer], **settings: Any) -> dict[str, Tensor]:
    """Write a model whose linear layers are packed. Returns their exact weights ``[out, in]`` by name, in float64."""
    stored: dict[str, Tensor] = {}
    exact: dict[str, Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if "_proj" not in name:
            stored[name] = tensor
            continue
        parts, exact[name] = pack(tensor)
        stored |= {name.replace("weight", part): each.contiguous() for part, each in parts.items()}
    shutil.copytree(source, folder)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    edit_config(folder, quantization_config=settings)
    return exact


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pack_fp8(weight: Tensor, block: int = GROUP) -> Layer:
    """A scale for each block of a weight, as DeepSeek-V3's ``weight_dequant`` reads them."""
    rows, columns = (-(-size // block) for size in weight.shape)
    scales, codes, exact = torch.zeros(rows, columns), torch.zeros_like(weight), torch.zeros_like(weight).double()
    for row in range(rows):
        for column in range(columns):
            place = slice(row * block, (row + 1) * block), slice(column * block, (column + 1) * block)
            scales[row, column] = weight[place].abs().max() / 448
            codes[place] = (weight[place] / scales[row, column]).to(torch.float8_e4m3fn).float()
            exact[place] = codes[place].double() * scales[row, column].double()
    return {"weight": codes.to(torch.float8_e4m3fn), "weight_scale_inv": scales}, exact


def round_to_codes(weight: Tensor, bits: int, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round to codes. Returns ``codes [out, in]``, ``zeros [out, groups]`` and ``scales [out, groups]`` in float16."""
    count = int(groups.max()) + 1
    split = [weight[:, groups == each] for each in range(count)]
    low, high = (torch.stack([pick(each, -1) for each in split], 1) for pick in (torch.amin, torch.amax))
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = torch.round(-low / scales.float()).clamp(0, 2**bits - 1)
    codes = torch.round(weight / scales.float()[:, groups] + zeros[:, groups]).clamp(0, 2**bits - 1)
    return codes.long(), zeros.long(), scales


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack the codes of each row, the first in the lowest bits: ``[rows, columns]`` to ``[rows, columns·bits/32]``."""
    places = torch.arange(0, 32, bits)
    packed = (codes.unflatten(1, (-1, 32 // bits)) << places).sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)


def pack_gptq(weight: Tensor, bits: int = 4, ordered: bool = True, offset: int = 1) -> Layer:
    """AutoGPTQ's ``QuantLinear.pack``; ``ordered`` spreads the groups over the inputs, as ``desc_act`` does."""
    places = torch.arange(weight.shape[1]) // GROUP
    groups = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(1))] if ordered else places
    codes, zeros, scales = round_to_codes(weight, bits, groups)
    parts = {
        "qweight": pack_bits(codes, bits).T,
        "qzeros": pack_bits((zeros.T - offset) % 2**bits, bits),
        "scales": scales.T,
        "g_idx": groups.to(torch.int32),
    }
    return parts, (codes - zeros[:, groups]).double() * scales.double()[:, groups]


def pack_awq(weight: Tensor) -> Layer:
    """AutoAWQ's ``WQLinear_GEMM.from_linear``: packed along the outputs, in an order of its own."""
    groups = torch.arange(weight.shape[1]) // GROUP
    codes, zeros, scales = round_to_codes(weight, 4, groups)

    def pack(each: Tensor) -> Tensor:
        return pack_bits(each.unflatten(1, (-1, 8))[:, :, AWQ_ORDER].flatten(1), 4)

    parts = {"qweight": pack(codes.T), "qzeros": pack(zeros.T), "scales": scales.T}
    return parts, (codes - zeros[:, groups]).double() * scales.double()[:, groups]


def write_exact(source: Path, folder: Path, exact: Mapping[str, Tensor]) -> Path:
    """Write the model with these weights in full precision, as a reference."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors") | {name: each.float() for name, each in exact.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder
