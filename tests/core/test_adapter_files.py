"""Adapters on disk, read and written beside PEFT itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from core.adapters import DOWN0, Q0, Q1, edit_config, irregular, peft_model, saved, tiny_folder, write_raw
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tureen_core.adapter_files import PREFIX, read_adapter, write_adapter
from tureen_core.heads import pool_hidden_states
from tureen_core.lora import Adapter, LoraPair, SoupError
from tureen_core.soup import compute_delta, concatenate_adapters, merge_adapter

IDS = torch.arange(3, 27).view(3, 8)


def deltas(model: Any, adapter: str = "default") -> dict[str, Tensor]:
    """PEFT's own ΔW of every module that an adapter targets."""
    prefix = "base_model.model."
    return {
        path.removeprefix(prefix): module.get_delta_weight(adapter).detach()
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer) and adapter in module.lora_A
    }


def product(low: LoraPair) -> Tensor:
    return low.scale * (low.b.double() @ low.a.double())


def run(model: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(IDS).logits
    return logits


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora_alpha": 3, "target_modules": "all-linear"},
        {"use_rslora": True, "r": 8, "lora_alpha": 16},
        {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"q_proj": 5, "layers.0.mlp.down_proj": 1}},
        {"rank_pattern": {"^model.layers.1.self_attn.q_proj": 2, "q_proj": 3}, "use_rslora": True},
        {"rank_pattern": {r"layers\.\d+\.mlp\.down_proj": 6}, "alpha_pattern": {".*proj": 9}},
        pytest.param(
            {"alpha_pattern": {"proj": 11, "1.mlp.down_proj": 3}},
            marks=pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning"),
        ),
        {"layers_to_transform": [1]},
        {"exclude_modules": ["down_proj"]},
        {"target_modules": r".*layers\.0.*(q|v)_proj"},
        {"lora_dropout": 0.5},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
    ],
    ids=str,
)
def test_what_is_read_is_what_peft_computes(options: dict[str, Any], base: Path, tmp_path: Path) -> None:
    model = peft_model(base, **options)
    if options.get("init_lora_weights") == "mica":  # trains A from zero
        for name, weight in model.named_parameters():
            weight.data += 0.1 * ("lora_A" in name)
    adapter, extras = read_adapter(saved(model, tmp_path), "x")
    expected = deltas(model)
    assert set(adapter.modules) == set(expected)
    assert extras == {}
    for path, low in adapter.modules.items():
        torch.testing.assert_close(product(low).float(), expected[path], rtol=1e-5, atol=1e-6)


def test_an_adapter_with_data_driven_ranks_is_read(base: Path, tmp_path: Path) -> None:
    """EVA redistributes ranks and writes them as patterns; the base is not changed."""
    model = peft_model(base, rank_pattern={DOWN0: 1, Q1: 6}, alpha_pattern={DOWN0: 2.5})
    saved(model, tmp_path)
    edit_config(tmp_path, init_lora_weights="eva", eva_config={"rho": 2.0})
    for path, low in read_adapter(tmp_path, "x")[0].modules.items():
        torch.testing.assert_close(product(low).float(), deltas(model)[path], rtol=1e-5, atol=1e-6)


def test_peft_cat_is_the_delta_soup_of_plain_adapters(base: Path, tmp_path: Path) -> None:
    model, adapters = two_in_peft(base, tmp_path, use_rslora=False)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.3], "soup", combination_type="cat")
    stack = concatenate_adapters(adapters)
    for path, delta in deltas(model, "soup").items():
        found = compute_delta(stack.modules[path], stack.order_weights({"one": 0.7, "two": 0.3}))
        torch.testing.assert_close(found, delta, rtol=1e-5, atol=1e-6)


def test_rank_stabilised_adapters_are_summed_at_their_own_scale(base: Path, tmp_path: Path) -> None:
    """PEFT 0.21 scales ``cat`` of rsLoRA adapters by sqrt of the new rank once more; the sum of B·A does not."""
    model, adapters = two_in_peft(base, tmp_path, use_rslora=True)
    stack = concatenate_adapters(adapters)
    one, two = deltas(model, "one"), deltas(model, "two")
    soup = merge_adapter(stack, {"one": 0.7, "two": 0.3}, "soup")
    for path, low in soup.modules.items():
        expected = 0.7 * one[path].double() + 0.3 * two[path].double()
        torch.testing.assert_close(product(low), expected, rtol=1e-5, atol=1e-6)


def two_in_peft(base: Path, folder: Path, use_rslora: bool) -> tuple[Any, list[Adapter]]:
    """Two adapters of unequal rank and alpha in one PEFT model, and as we read them."""
    options = {"target_modules": ["q_proj"], "init_lora_weights": False, "use_rslora": use_rslora}
    torch.manual_seed(2)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=8, lora_alpha=16, **options), adapter_name="one"
    )
    model.add_adapter("two", LoraConfig(r=8 if use_rslora else 3, lora_alpha=4, **options))
    model.save_pretrained(folder)
    return model, [read_adapter(folder / name, name)[0] for name in ("one", "two")]


# --------------------------------------------------------------------------- refusals


def retensor(folder: Path, **changes: Tensor | None) -> None:
    """Replace or drop tensors, named by what follows the prefix, with ``__`` for dots."""
    path = folder / "adapter_model.safetensors"
    tensors: dict[str, Tensor | None] = {**load_file(path)}
    tensors |= {PREFIX + name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{Q0}.lora_A.weight": None}, "q_proj has lora_B only"),
        ({f"{Q0}.lora_B.weight": None}, "q_proj has lora_A only"),
        ({f"{Q0}.lora_A.weight": torch.ones(3, 32)}, r"declares rank 4 but A is \[3, 32\] and B is \[128, 4\]"),
        ({f"{Q0}.lora_B.weight": torch.ones(128, 5)}, r"declares rank 4 but A is \[4, 32\] and B is \[128, 5\]"),
        ({f"{Q0}.lora_B.bias": torch.ones(32)}, r"unexpected tensor .*q_proj.lora_B.bias of shape \[32\]"),
        ({f"{Q0}.lora_diag": torch.ones(4)}, "unexpected tensor .*lora_diag"),
        ({f"{Q0}.lora_A.default.weight": torch.ones(4, 32)}, r"unexpected tensor .*lora_A\.default"),
        ({"conv.lora_A.weight": torch.ones(4, 3, 1, 1)}, r"unexpected tensor .*conv\.lora_A.* \[4, 3, 1, 1\]"),
        ({"score.weight": torch.ones(1, 32)}, "unexpected tensor .*score.weight"),
        ({"model.norm.weight": torch.ones(32)}, "unexpected tensor .*model.norm.weight"),
    ],
    ids=lambda case: "" if isinstance(case, str) else " ".join(case),
)
def test_a_tensor_out_of_place_is_named(tensors: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    retensor(tiny_folder(tmp_path), **tensors)
    with pytest.raises(SoupError, match=f"^sour: .*{message}"):
        read_adapter(tmp_path, "sour")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_config.json", None, "has no adapter_config.json"),
        ("adapter_config.json", "{", "adapter_config.json is not JSON"),
        ("adapter_config.json", "[]", "adapter_config.json is not a JSON object"),
        ("adapter_config.json", '{"peft_type": "LORA", "lora_alpha": 1}', "has no number r"),
        ("adapter_config.json", '{"peft_type": "LORA", "r": 4, "lora_alpha": null}', "has no number lora_alpha"),
        ("adapter_config.json", "{}", "LoRA adapters, not of None"),
        (
            "adapter_model.safetensors",
            None,
            r"has no adapter_model\.safetensors; save safetensors, since pickles \(\.bin\) are not read$",
        ),
        ("adapter_model.safetensors", "junk and more junk", "adapter_model.safetensors cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    path = tiny_folder(tmp_path) / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(SoupError, match=f"^sour: .*{message}"):
        read_adapter(tmp_path, "sour")


def test_a_folder_without_lora_is_refused(tmp_path: Path) -> None:
    write_raw(
        tmp_path, {"peft_type": "LORA", "r": 1, "lora_alpha": 1}, {"base_model.model.score.weight": torch.ones(1)}
    )
    with pytest.raises(SoupError, match="holds no LoRA tensors"):
        read_adapter(tmp_path, "x", ("score",))


# --------------------------------------------------------------------------- heads


def test_a_classifier_that_peft_saved_is_read_with_its_head(base: Path, tmp_path: Path) -> None:
    """PEFT writes ``modules_to_save: [classifier, score]`` for every classifier, whichever of them it has."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], init_lora_weights=False))
    folder = saved(model, tmp_path)
    assert json.loads((folder / "adapter_config.json").read_text())["modules_to_save"] == ["classifier", "score"]
    adapter, extras = read_adapter(folder, "reward", ("score",))
    assert set(adapter.modules) == {Q0, Q1}
    assert set(extras) == {"score.weight"}
    assert torch.equal(extras["score.weight"], model.base_model.model.score.modules_to_save["default"].weight)
    with pytest.raises(SoupError, match="whole trained modules"):
        read_adapter(folder, "expert")


def test_lora_on_the_head_is_no_expert_module(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    retensor(tmp_path, score__lora_A__weight=torch.ones(4, 32), score__lora_B__weight=torch.ones(1, 4))
    adapter, extras = read_adapter(tmp_path, "x", ("score",))
    assert "score" not in adapter.modules
    assert set(extras) == {"score.lora_A.weight", "score.lora_B.weight"}


# --------------------------------------------------------------------------- writing


def first_layer() -> Adapter:
    return Adapter("first", {path: low for path, low in tiny.adapter("x", 5).modules.items() if ".0." in path})


@pytest.mark.parametrize("adapter", [tiny.adapter("even", 2), irregular(), first_layer()], ids=lambda a: a.name)
def test_peft_opens_what_is_written_and_computes_the_same(adapter: Adapter, base: Path, tmp_path: Path) -> None:
    """Any key that PEFT misses or does not know is a warning, and a warning fails the test."""
    write_adapter(adapter, tmp_path, str(base))
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(base)
    for path, low in adapter.modules.items():
        expected.get_submodule(path).weight.data += product(low).float()
    assert set(deltas(opened)) == set(adapter.modules)
    torch.testing.assert_close(run(opened), run(expected), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(run(opened), run(AutoModelForCausalLM.from_pretrained(base)), atol=1e-3)


def test_peft_opens_a_reward_model_with_its_head(base: Path, tmp_path: Path) -> None:
    adapter, head = tiny.adapter("kind", 6), torch.randn(2, 32)
    write_adapter(adapter, tmp_path, str(base), extras={"score.weight": head}, task="SEQ_CLS")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    opened = PeftModel.from_pretrained(model, tmp_path).eval()
    backbone = AutoModelForCausalLM.from_pretrained(base)
    for path, low in adapter.modules.items():
        backbone.get_submodule(path).weight.data += product(low).float()
    with torch.no_grad():
        hidden = backbone.model(IDS).last_hidden_state
        scores = opened(IDS, attention_mask=torch.ones_like(IDS)).logits
    torch.testing.assert_close(
        scores, pool_hidden_states(hidden, torch.ones_like(IDS), "eos") @ head.T, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writing_and_reading_keep_the_product(dtype: torch.dtype, tmp_path: Path) -> None:
    adapter, head = irregular(), torch.randn(1, 32)
    write_adapter(adapter, tmp_path, "tiny", dtype=dtype, extras={"score.weight": head})
    back, extras = read_adapter(tmp_path, "odd", ("score",))
    assert torch.equal(extras["score.weight"], head)
    for path, low in adapter.modules.items():
        found = back.modules[path]
        assert found.scale == 1.0
        assert found.a.dtype == found.b.dtype == dtype
        tolerance = 1e-6 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(product(found), product(low), rtol=tolerance, atol=tolerance)


def test_nothing_cannot_be_written(tmp_path: Path) -> None:
    empty = merge_adapter(concatenate_adapters([tiny.adapter("a", 0)]), {}, "none")
    with pytest.raises(
        SoupError, match="none: all weights are zero, so there is no adapter to write; use the base itself"
    ):
        write_adapter(empty, tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()
