"""What is wrong with a model in a published layout is told when it is opened, before anything is served."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from serve import layouts
from serve.layouts import LAYOUTS, Layout
from torch import Tensor

from tureen_core import base
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.reward import open_plain_reward

HEADS = {
    "dsp": "reward_head.weight",
    "ultrarm": "regression_head.weight",
    "eurus": "regression_head.weight",
    "starling": "v_head.weight",
    "deepspeed-chat": "v_head.weight",
    "value-head": "v_head.summary.weight",
    "armorm": "regression_layer.weight",
    "internlm2": "v_head.weight",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(base, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def change(layout: Layout, name: str, to: Callable[[Tensor], Tensor | None]) -> Path:
    """Replace one tensor; None removes it."""
    for path in layout.folder.glob("*.safetensors"):
        tensors = load_file(path)
        if name in tensors:
            changed = to(tensors.pop(name))
            save_file(tensors | ({} if changed is None else {name: changed}), path, {"format": "pt"})
    return layout.folder


def configure(layout: Layout, **changes: Any) -> Path:
    path = layout.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return layout.folder


@pytest.mark.parametrize("name", HEADS)
def test_a_missing_head_is_named(tmp_path: Path, name: str) -> None:
    folder = change(LAYOUTS[name](tmp_path / name), HEADS[name], lambda _: None)
    with pytest.raises(PlainError, match=f"the tensor {HEADS[name]} is missing"):
        open_plain_reward(folder, PlainOptions(form=name))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_width_is_refused(tmp_path: Path, name: str) -> None:
    folder = change(LAYOUTS[name](tmp_path / name), HEADS[name], lambda head: head[:, :8].clone())
    with pytest.raises(PlainError, match="the head reads 8 units and the model has 32"):
        open_plain_reward(folder)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_with_a_value_that_is_not_finite_is_refused(tmp_path: Path, name: str) -> None:
    folder = change(LAYOUTS[name](tmp_path / name), HEADS[name], lambda head: head / 0)
    with pytest.raises(PlainError, match="of the head holds a value that is not finite"):
        open_plain_reward(folder)


def test_a_backbone_with_a_value_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    folder = change(layouts.ultrarm(tmp_path / "m"), "model.norm.weight", lambda norm: norm * float("nan"))
    with pytest.raises(PlainError, match="a reward is .nan.; a weight may be damaged"):
        open_plain_reward(folder)


@pytest.mark.parametrize("name", ["dsp", "starling", "internlm2"])
def test_a_missing_weight_of_the_backbone_is_named(tmp_path: Path, name: str) -> None:
    lost = {"dsp": "model.norm.weight", "starling": "transformer.norm.weight", "internlm2": "model.norm.weight"}[name]
    folder = change(LAYOUTS[name](tmp_path / name), lost, lambda _: None)
    with pytest.raises(PlainError, match="the weight norm.weight is missing"):
        open_plain_reward(folder)


@pytest.mark.parametrize(
    ("tensor", "to", "message"),
    [
        ("gating.layers.0.weight", lambda _: None, "gating.layers.0.weight is missing"),
        ("gating.layers.2.bias", lambda each: each[:3].clone(), "the gate does not fit"),
        ("gating.layers.1.weight", lambda each: each / 0, "the gate's layers.1.weight cannot be used"),
        ("gating.logit_scale", lambda _: None, "gating.logit_scale is missing"),
        ("reward_transform_matrix", lambda _: None, "reward_transform_matrix is missing"),
        ("reward_transform_matrix", lambda _: torch.eye(18), "the gate does not fit"),
    ],
)
def test_a_damaged_gate_is_refused(
    tmp_path: Path, tensor: str, to: Callable[[Tensor], Tensor | None], message: str
) -> None:
    with pytest.raises(PlainError, match=message):
        open_plain_reward(change(layouts.armorm(tmp_path / "m"), tensor, to))


def test_a_gate_without_its_header_in_the_template_is_refused(tmp_path: Path) -> None:
    folder = layouts.armorm(tmp_path / "m").folder
    with pytest.raises(PlainError, match="the chat template writes no header"):
        open_plain_reward(folder, PlainOptions(template="chatml"))


def test_internlm2_needs_a_reward_token_and_known_positions(tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="reward_token_id"):
        open_plain_reward(configure(layouts.internlm2(tmp_path / "a"), reward_token_id=9999))
    with pytest.raises(PlainError, match="rope_scaling .* is not known"):
        open_plain_reward(configure(layouts.internlm2(tmp_path / "b"), rope_scaling={"type": "linear", "factor": 2.0}))


def test_a_converted_backbone_is_written_once(tmp_path: Path, cache: Path) -> None:
    folder = layouts.starling(tmp_path / "m").folder
    first = open_plain_reward(folder)
    written = {path: path.stat().st_mtime_ns for path in first.folder.glob("*.safetensors")}
    assert first.folder.parent.parent == cache / "plain"
    assert open_plain_reward(folder).folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.folder.glob("*.safetensors")} == written
    changed = open_plain_reward(configure(layouts.starling(tmp_path / "other"), rms_norm_eps=0.5))
    assert changed.folder != first.folder
    assert changed.manifest.probes[0].scores != first.manifest.probes[0].scores


def test_a_language_model_is_no_nemotron_unless_it_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(PlainError, match="a language model without a reward head"):
        open_plain_reward(layouts.nemotron(tmp_path / "m").folder)


def test_a_tokenizers_own_template_gives_way_to_the_published_one_but_not_to_the_users(tmp_path: Path) -> None:
    folder = layouts.starling(tmp_path / "m").folder
    published, own = open_plain_reward(folder), open_plain_reward(folder, PlainOptions(template="chatml"))
    assert published.plain is not None
    assert own.plain is not None
    assert "[INST]" in published.plain.tokenizer.chat_template
    assert "[INST]" not in own.plain.tokenizer.chat_template
