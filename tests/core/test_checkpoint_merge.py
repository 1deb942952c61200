"""A soup merged into a full checkpoint, against the same sum made in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from core.adapters import pair
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tureen_core.checkpoint_merge import merge_checkpoint
from tureen_core.lora import Adapter, SoupError
from tureen_core.soup import (
    Semantics,
    Stack,
    compute_delta,
    concatenate_adapters,
)


def logits(model: Any) -> Tensor:
    ids = torch.arange(3, 19).view(2, 8)
    with torch.no_grad():
        found: Tensor = model.eval()(ids).logits
    return found


def summed(base: Path, stack: Stack, weights: Mapping[str, float], semantics: Semantics = "delta") -> Any:
    """The base with ΔW added to its weights in memory."""
    model = AutoModelForCausalLM.from_pretrained(base)
    for path, stacked in stack.modules.items():
        weight = model.get_submodule(path).weight
        delta = compute_delta(stacked, stack.order_weights(weights), semantics)
        weight.data = (weight.data.float() + delta).to(weight.dtype)
    return model


def copy_of(base: Path, folder: Path, **changes: Any) -> Path:
    """The base saved again in another dtype or other shards."""
    model = AutoModelForCausalLM.from_pretrained(base).to(changes.pop("dtype", torch.float32))
    model.save_pretrained(folder, **changes)
    return folder


STACK = concatenate_adapters([tiny.adapter("a", 1), tiny.adapter("b", 2)])
MIXES: list[dict[str, float]] = [{"a": 1.0}, {"a": 0.3, "b": 0.7}, {"a": 1.5, "b": -0.5}, {}]


@pytest.mark.parametrize("semantics", ["delta", "factor"])
@pytest.mark.parametrize("weights", MIXES, ids=str)
def test_a_merged_checkpoint_opens_and_agrees(
    weights: dict[str, float], semantics: Semantics, base: Path, tmp_path: Path
) -> None:
    merge_checkpoint(base, STACK, weights, tmp_path / "out", semantics)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(merged), logits(summed(base, STACK, weights, semantics)), rtol=1e-5, atol=1e-5)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    changed = not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-3)
    assert changed == bool(weights)


def test_a_bfloat16_base_is_summed_in_float32_and_cast_once(base: Path, tmp_path: Path) -> None:
    half = copy_of(base, tmp_path / "half", dtype=torch.bfloat16)
    merge_checkpoint(half, STACK, {"a": 0.6, "b": 0.4}, tmp_path / "out")
    merged, expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), summed(half, STACK, {"a": 0.6, "b": 0.4})
    assert merged.dtype == torch.bfloat16
    assert torch.equal(logits(merged), logits(expected))


def test_a_bfloat16_base_may_be_merged_to_float32_without_loss(base: Path, tmp_path: Path) -> None:
    half = copy_of(base, tmp_path / "half", dtype=torch.bfloat16)
    merge_checkpoint(half, STACK, {"a": 1e-3}, tmp_path / "out", dtype=torch.float32)
    merged, plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), AutoModelForCausalLM.from_pretrained(half)
    assert merged.dtype == torch.float32
    for path, stacked in STACK.modules.items():
        found = merged.get_submodule(path).weight - plain.get_submodule(path).weight.float()
        torch.testing.assert_close(
            found, compute_delta(stacked, STACK.order_weights({"a": 1e-3})), rtol=1e-2, atol=1e-7
        )


def test_shards_stay_shards(base: Path, tmp_path: Path) -> None:
    sharded = copy_of(base, tmp_path / "sharded", max_shard_size="40KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    merge_checkpoint(sharded, STACK, {"a": 1.0}, tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(merged), logits(summed(base, STACK, {"a": 1.0})), rtol=1e-5, atol=1e-5)
    assert {path.name for path in (tmp_path / "out").glob("*.safetensors")} == {
        path.name for path in sharded.glob("*.safetensors")
    }


def test_tensors_that_are_no_floats_are_not_cast(tmp_path: Path) -> None:
    source = tmp_path / "base"
    source.mkdir()
    path = "model.layers.0.self_attn.q_proj"
    save_file({f"{path}.weight": torch.zeros(6, 4), "steps": torch.tensor([2**40])}, source / "model.safetensors")
    (source / "config.json").write_text('{"torch_dtype": "float32"}')
    stack = concatenate_adapters([Adapter("a", {path: pair(2, (6, 4), 1.0, 0)})])
    merge_checkpoint(source, stack, {"a": 1.0}, tmp_path / "out", dtype=torch.bfloat16)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written["steps"].tolist() == [2**40]
    assert written[f"{path}.weight"].dtype == torch.bfloat16
    assert (tmp_path / "out" / "config.json").read_text() == '{\n  "dtype": "bfloat16"\n}\n'


def with_head() -> Stack:
    return concatenate_adapters([Adapter("a", {"lm_head": pair(2, (320, 32), 1.0, 0)})])


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (
            concatenate_adapters([tiny.adapter("a", 0, hidden=16)]),
            r"down_proj as \[32, 64\] and the experts adapt \[16, 32\]",
        ),
        (
            concatenate_adapters([Adapter("a", {"transformer.h.0.attn": pair(2, (4, 4), 1.0, 0)})]),
            "no weight for transformer.h.0",
        ),
        (with_head(), "no weight for lm_head: it is tied"),
    ],
)
def test_another_base_is_refused_before_anything_is_written(
    stack: Stack, message: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(SoupError, match=message):
        merge_checkpoint(base, stack, {"a": 1.0}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_are_never_written_over(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SoupError, match="already holds weights"):
        merge_checkpoint(base, STACK, {"a": 1.0}, base)
    merge_checkpoint(base, STACK, {"a": 1.0}, tmp_path / "out")
    with pytest.raises(SoupError, match="choose an empty folder"):
        merge_checkpoint(base, STACK, {"b": 1.0}, tmp_path / "out")


def test_pickles_of_the_base_are_left_behind(base: Path, tmp_path: Path) -> None:
    source = copy_of(base, tmp_path / "base")
    for name in ("pytorch_model.bin", "training_args.pt", "model.gguf"):
        (source / name).write_bytes(b"x")
    merge_checkpoint(source, STACK, {"a": 1.0}, tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}
