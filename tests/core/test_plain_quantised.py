"""Quantised folders: each kind has the weights of its library and of its published formula, or is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quantised_folders import (
    edit_config,
    pack_awq,
    pack_fp8,
    pack_gptq,
    quantise_by_bitsandbytes,
    quantise_by_compressed_tensors,
    quantise_layers,
    write_plain,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, FineGrainedFP8Config

from tureen_core.base import BaseError, locate_base
from tureen_core.plain.dequantisers import KINDS
from tureen_core.plain.options import PlainError
from tureen_core.plain.quantised import dequantise_folder
from tureen_core.plain.reward import open_plain_reward

VECTORS = Path(__file__).parent / "data" / "packed_layers.safetensors"
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
PACKS: dict[str, tuple[Callable[[Tensor], Any], dict[str, Any]]] = {
    "fp8": (pack_fp8, FP8),
    "gptq": (pack_gptq, GPTQ),
    "gptq-8": (lambda weight: pack_gptq(weight, 8, ordered=False), {**GPTQ, "bits": 8}),
    "gptq-v2": (lambda weight: pack_gptq(weight, offset=0), {**GPTQ, "checkpoint_format": "gptq_v2"}),
    "awq": (pack_awq, AWQ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain(tmp_path_factory.mktemp("plain") / "model")


def need(kind: str) -> None:
    """Skip a test whose library is not installed."""
    pytest.importorskip(KINDS[kind].package)


def read_weights(folder: Path) -> dict[str, Tensor]:
    return {name: each for path in folder.glob("*.safetensors") for name, each in load_file(path).items()}


def test_a_folder_that_is_not_quantised_is_itself(plain: Path, tmp_path: Path) -> None:
    assert dequantise_folder(plain, tmp_path / "cache") == plain
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", PACKS)
def test_packed_weights_are_those_of_the_published_formula(name: str, plain: Path, tmp_path: Path) -> None:
    pack, settings = PACKS[name]
    need(settings["quant_method"])
    exact = quantise_layers(plain, tmp_path / "packed", pack, **settings)
    copy = dequantise_folder(tmp_path / "packed", tmp_path / "cache")
    found, before = read_weights(copy), read_weights(plain)
    assert found.keys() == before.keys()
    for key, tensor in found.items():
        wanted = exact.get(key, before[key])
        assert (tensor.double() - wanted).abs().max() <= 1e-7 * wanted.abs().max()
        assert (tensor - before[key]).abs().max() <= 0.1 * before[key].abs().max()  # it is still the same model
    assert "quantization_config" not in json.loads((copy / "config.json").read_text())
    assert copy.name == "packed"
    written = copy.stat().st_mtime_ns
    assert dequantise_folder(tmp_path / "packed", tmp_path / "cache") == copy
    assert copy.stat().st_mtime_ns == written  # it is made once


@pytest.mark.parametrize("name", ["gptq-ordered", "gptq-zeros", "gptq-8", "awq"])
def test_packed_layers_of_gptqmodel_have_its_weights(name: str, plain: Path) -> None:
    """GPTQModel 7.7 quantised them, and computed their weights in float16."""
    kind = KINDS[name.split("-")[0]]
    need(name.split("-")[0])
    stored = load_file(VECTORS)
    parts = {key.removeprefix(f"{name}."): each for key, each in stored.items() if key.startswith(f"{name}.")}
    wanted = parts.pop("weight").float()
    settings = {**(AWQ if name == "awq" else GPTQ), "bits": 8 if name == "gptq-8" else 4}
    found = kind.open(plain, settings)("layer", parts)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() <= 2**-11 * wanted.abs().max()  # float16 has 11 digits


@pytest.mark.parametrize(
    "settings",
    [
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        {"load_in_8bit": True},
    ],
)
def test_weights_of_bitsandbytes(settings: dict[str, Any], plain: Path, tmp_path: Path) -> None:
    need("bitsandbytes")
    folder = quantise_by_bitsandbytes(plain, tmp_path / "quantised", **settings)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).dequantize()
    found = read_weights(dequantise_folder(folder, tmp_path / "cache"))
    assert found.keys() == read_weights(plain).keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor)
    if "load_in_8bit" in settings:
        stored, name = load_file(folder / "model.safetensors"), "model.layers.1.mlp.down_proj"
        exact = stored[f"{name}.weight"].double() * stored[f"{name}.SCB"].double()[:, None] / 127
        assert (found[f"{name}.weight"] - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_the_order_of_a_gpus_tiles_is_refused(plain: Path, tmp_path: Path) -> None:
    need("bitsandbytes")
    folder = quantise_by_bitsandbytes(plain, tmp_path / "quantised", load_in_8bit=True)
    change(folder, "model.layers.0.mlp.up_proj.weight_format", lambda tensor: tensor + 2)
    with pytest.raises(PlainError, match=r"layers\.0\.mlp\.up_proj cannot be read: its weight_format is the order of"):
        dequantise_folder(folder, tmp_path / "cache")


COMPRESSED: dict[str, dict[str, Any]] = {
    "int4": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32},
    "int4-zeros": {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32},
    "int8": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
    "float8": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"},
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_weights_of_compressed_tensors(name: str, plain: Path, tmp_path: Path) -> None:
    need("compressed-tensors")
    from transformers import CompressedTensorsConfig

    weights = COMPRESSED[name]
    more = {} if "int4" in name else {"input_activations": {**weights, "strategy": "token", "dynamic": True}}
    folder = quantise_by_compressed_tensors(plain, tmp_path / "quantised", weights=weights, **more)
    given = CompressedTensorsConfig(dequantize=True)
    with pytest.warns(UserWarning, match="You passed `quantization_config`"):
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, quantization_config=given
        )
    found, before = read_weights(dequantise_folder(folder, tmp_path / "cache")), read_weights(plain)
    assert found.keys() == before.keys()
    for key, tensor in found.items():
        assert torch.equal(tensor, model.state_dict()[key])
        assert (tensor - before[key]).abs().max() <= 0.1 * before[key].abs().max()
    assert any(not torch.equal(found[key], before[key]) for key in found)


def change(folder: Path, name: str, to: Callable[[Tensor], Tensor | None]) -> None:
    """Replace one tensor; None removes it."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    changed = to(tensors.pop(name))
    save_file(tensors | ({} if changed is None else {name: changed}), path, {"format": "pt"})


def test_fp8_weights_are_never_read_without_their_scales(plain: Path, tmp_path: Path) -> None:
    need("fp8")
    exact = quantise_layers(plain, tmp_path / "fp8", pack_fp8, **FP8)
    name = "model.layers.0.mlp.up_proj.weight"
    artifact = open_plain_reward(tmp_path / "fp8", cache=tmp_path / "cache")
    assert torch.equal(read_weights(artifact.folder)[name], exact[name].float())
    assert artifact.name == "fp8"
    change(tmp_path / "fp8", f"{name}_scale_inv", lambda _: None)
    with pytest.raises(PlainError, match=rf"{name} is quantised \(F8_E4M3\), and `quantization_config` of config.json"):
        open_plain_reward(tmp_path / "fp8", cache=tmp_path / "cache")


def test_a_configuration_that_lost_its_quantisation_is_noticed(plain: Path, tmp_path: Path) -> None:
    exact = quantise_layers(plain, tmp_path / "fp8", pack_fp8, **FP8)
    edit_config(tmp_path / "fp8", quantization_config=None)
    silent = AutoModelForSequenceClassification.from_pretrained(tmp_path / "fp8", dtype=torch.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    assert (silent.state_dict()[name] - exact[name]).abs().max() > 100  # transformers takes codes for numbers
    with pytest.raises(PlainError, match=r"is quantised \(F8_E4M3\), .* copy the whole model again"):
        open_plain_reward(tmp_path / "fp8", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weight_block_size": None}, "weight_block_size is None; only two sizes"),
        ({"weight_block_size": [16, 16]}, r"weight_scale_inv is \[\d, \d\], and must be"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(changes: dict[str, Any], reason: str, plain: Path, tmp_path: Path) -> None:
    need("fp8")
    quantise_layers(plain, tmp_path / "fp8", pack_fp8, **{**FP8, **changes})
    with pytest.raises(PlainError, match=rf"quantised \(fp8, .* cannot be read: {reason}.*; save a copy"):
        dequantise_folder(tmp_path / "fp8", tmp_path / "cache")


def test_two_libraries_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    """transformers divides 96 rows by 2 scales, whatever ``weight_block_size`` says."""
    need("fp8")
    source = write_plain(tmp_path / "plain", inner=96)
    settings = {**FP8, "weight_block_size": [64, 64]}
    exact = quantise_layers(source, tmp_path / "fp8", lambda weight: pack_fp8(weight, 64), **settings)
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "fp8", dtype=torch.float32, quantization_config=FineGrainedFP8Config(dequantize=True)
    )
    name = "model.layers.0.mlp.up_proj.weight"
    assert (model.state_dict()[name] - exact[name]).abs().max() > 1e-3
    with pytest.raises(PlainError, match=r"transformers and compressed_tensors read \S+_proj\.weight as other numbers"):
        dequantise_folder(tmp_path / "fp8", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_unknown_kinds_and_missing_packages_say_what_to_do(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantise_layers(plain, tmp_path / "model", pack_gptq, **{**GPTQ, "quant_method": "hqq"})
    known = (
        r"by `quantization_config` of config.json\); this version reads bitsandbytes, fp8, .* and GGUF files: save a"
    )
    with pytest.raises(PlainError, match=rf"model is quantised \(hqq, {known}"):
        open_plain_reward(tmp_path / "model", cache=tmp_path / "cache")
    edit_config(tmp_path / "model", quantization_config=GPTQ)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PlainError, match=r"needs compressed-tensors: pip install 'tureen\[quantised\]', or save a"):
        open_plain_reward(tmp_path / "model", cache=tmp_path / "cache")


def test_settings_that_are_not_read_are_named(plain: Path, tmp_path: Path) -> None:
    need("gptq")
    strange: list[dict[str, Any]] = [{"bits": 3}, {"checkpoint_format": "marlin"}, {"dynamic": {"-:.*": {}}}]
    for settings in strange:
        folder = tmp_path / next(iter(settings))
        quantise_layers(plain, folder, pack_gptq, **{**GPTQ, **settings})
        with pytest.raises(PlainError, match=r"quantised \(gptq, .* cannot be read: bits is .* and checkpoint_format"):
            dequantise_folder(folder, tmp_path / "cache")
    quantise_layers(plain, tmp_path / "gemv", pack_awq, **{**AWQ, "version": "gemv"})
    with pytest.raises(PlainError, match=r"quantised \(awq, .* Unsupported AutoAWQ version: gemv"):
        dequantise_folder(tmp_path / "gemv", tmp_path / "cache")
    change(tmp_path / "bits", "model.layers.0.mlp.up_proj.scales", lambda _: None)
    edit_config(tmp_path / "bits", quantization_config=GPTQ)
    with pytest.raises(PlainError, match=r"layers\.0\.mlp\.up_proj cannot be read: the part 'scales' is missing"):
        dequantise_folder(tmp_path / "bits", tmp_path / "cache")


def test_a_new_tokenizer_is_a_new_copy(plain: Path, tmp_path: Path) -> None:
    need("awq")
    quantise_layers(plain, tmp_path / "awq", pack_awq, **AWQ)
    before = dequantise_folder(tmp_path / "awq", tmp_path / "cache")
    (tmp_path / "awq" / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    after = dequantise_folder(tmp_path / "awq", tmp_path / "cache")
    assert before != after
    assert (after / "chat_template.jinja").read_text().startswith("{{ messages")


def test_a_quantised_base_is_refused(plain: Path, tmp_path: Path) -> None:
    quantise_layers(plain, tmp_path / "fp8", pack_fp8, **FP8)
    with pytest.raises(BaseError, match=r"fp8 is quantised \(fp8, .* name the base with weights in full precision"):
        locate_base(str(tmp_path / "fp8"))
