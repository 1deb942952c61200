"""Adapters on disk, read and written beside PEFT itself."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    IA3Config,
    KasaConfig,
    LoraConfig,
    MontecloraConfig,
    PeftModel,
    VeloraConfig,
    get_peft_model,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tureen_core.heads import pool_hidden_states
from tureen_core.lora import (
    PREFIX,
    REFUSED,
    UNDERSTOOD,
    Adapter,
    LoraPair,
    SoupError,
    read_adapter,
    write_adapter,
)
from tureen_core.soup import compute_delta, concatenate_adapters, merge_adapter

Q0, Q1, DOWN0 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.down_proj"
IDS = torch.arange(3, 27).view(3, 8)


def peft_model(base: Path, **options: Any) -> Any:
    """A PEFT model over the tiny base with random A and B."""
    settings = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, **options}
    torch.manual_seed(1)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))


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


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


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
    edit(tmp_path, init_lora_weights="eva", eva_config={"rho": 2.0})
    for path, low in read_adapter(tmp_path, "x")[0].modules.items():
        torch.testing.assert_close(product(low).float(), deltas(model)[path], rtol=1e-5, atol=1e-6)


def test_peft_cat_is_the_delta_soup_of_plain_adapters(base: Path, tmp_path: Path) -> None:
    model, adapters = two_in_peft(base, tmp_path, use_rslora=False)
    model.add_weighted_adapter(["one", "two"], [0.7, 0.3], "soup", combination_type="cat")
    stack = concatenate_adapters(adapters)
    for path, delta in deltas(model, "soup").items():
        found = compute_delta(stack.modules[path], stack.row({"one": 0.7, "two": 0.3}))
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


# --------------------------------------------------------------------------- the rule of scales, without PEFT


@st.composite
def configurations(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, tuple[int, float]]]:
    """A configuration with patterns, and the rank and scale that each path must get from it."""
    rslora = draw(st.booleans())
    rank, alpha = draw(st.integers(1, 9)), draw(st.floats(0.5, 32))
    ranks = draw(st.dictionaries(st.sampled_from(["q_proj", "down_proj", r"layers\.0\..*"]), st.integers(1, 9)))
    alphas = draw(st.dictionaries(st.sampled_from(["q_proj", Q1, "down_proj"]), st.floats(0.5, 32)))
    expected = {}
    for path in (Q0, Q1, DOWN0):
        found = first(ranks, path, rank)
        expected[path] = found, first(alphas, path, alpha) / (math.sqrt(found) if rslora else found)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": rslora,
    }
    return config, expected


def first(pattern: Mapping[str, Any], path: str, default: Any) -> Any:
    """The first pattern that names this path, spelled out for the few patterns used here."""
    for key, value in pattern.items():
        if path.endswith(key) or (key.startswith("layers") and ".layers.0." in path):
            return value
    return default


@settings(max_examples=60)
@given(configurations())
def test_every_module_has_its_own_rank_and_scale(case: tuple[dict[str, Any], dict[str, tuple[int, float]]]) -> None:
    config, expected = case
    with TemporaryDirectory() as name:
        folder = Path(name)
        tensors = {}
        for path, (rank, _) in expected.items():
            tensors[f"{PREFIX}{path}.lora_A.weight"] = torch.ones(rank, 2)
            tensors[f"{PREFIX}{path}.lora_B.weight"] = torch.ones(3, rank)
        write_raw(folder, config, tensors)
        adapter, _ = read_adapter(folder, "x")
    for path, (rank, scale) in expected.items():
        assert adapter.modules[path].rank == rank
        assert adapter.modules[path].scale == pytest.approx(scale)


def write_raw(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    return folder


# --------------------------------------------------------------------------- refusals


@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of some of these itself
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "use_dora is set, and DoRA rescales"),
        ({"lora_bias": True}, "lora_bias is set, and a bias on B"),
        ({"bias": "all"}, "trained biases \\(bias='all'\\)"),
        ({"bias": "lora_only"}, "trained biases \\(bias='lora_only'\\)"),
        ({"modules_to_save": ["lm_head"]}, "whole trained modules \\(lm_head\\)"),
        ({"modules_to_save": ["classifier", "norm"]}, "whole trained modules \\(classifier, norm\\)"),
        ({"init_lora_weights": "pissa"}, "initialisation 'pissa' changes the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "initialisation 'pissa_niter_4' changes the base"),
        ({"init_lora_weights": "olora"}, "initialisation 'olora' changes the base"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens.* LoRA on embeddings"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.* tied output head"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer_replication is set"),
        ({"target_parameters": ["mlp.down_proj.weight"]}, "target_parameters is set"),
        ({"kasa_config": KasaConfig()}, "kasa_config is set, and KaSA truncates"),
        ({"monteclora_config": MontecloraConfig()}, "monteclora_config is set"),
        ({"velora_config": VeloraConfig()}, "velora_config is set"),
    ],
    ids=str,
)
def test_what_peft_trains_and_a_soup_cannot_hold(
    options: dict[str, Any], message: str, base: Path, tmp_path: Path
) -> None:
    settings = {"target_modules": ["q_proj"], "init_lora_weights": True, **options}
    with pytest.raises(SoupError, match=f"^sour: .*{message}"):
        read_adapter(saved(peft_model(base, **settings), tmp_path), "sour")


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_every_refusal_gives_its_reason(key: str, tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    edit(tmp_path, **{key: {"nblocks": 2} if key.endswith(("config", "bdlora")) else True})
    with pytest.raises(SoupError) as caught:
        read_adapter(tmp_path, "sour")
    assert str(caught.value) == f"sour: {key} is set, and {REFUSED[key]}"


def test_another_kind_of_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    saved(get_peft_model(AutoModelForCausalLM.from_pretrained(base), config), tmp_path)
    with pytest.raises(SoupError, match="sour: a soup is made of LoRA adapters, not of IA3"):
        read_adapter(tmp_path, "sour")


def test_every_option_of_the_installed_peft_is_judged() -> None:
    """A new PEFT may bring a LoRA that is no plain sum: someone has to say which of the two lists it belongs to."""
    options = {field.name for field in fields(LoraConfig)} | set(LoraConfig(r=1).to_dict())
    assert options - UNDERSTOOD - set(REFUSED) == set()
    assert UNDERSTOOD.isdisjoint(REFUSED)


def test_an_option_nobody_knows_is_refused_unless_it_is_off(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    edit(tmp_path, use_tomorrow=False, tomorrow_config=None)
    read_adapter(tmp_path, "x")
    edit(tmp_path, tomorrow_config={"beta": 1})
    with pytest.raises(SoupError, match=r"adapter_config\.json sets tomorrow_config, which is not known here"):
        read_adapter(tmp_path, "x")


def tiny_folder(folder: Path) -> Path:
    write_adapter(tiny.adapter("x", 0), folder, "tiny")
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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


def test_a_rank_that_no_tensor_has_is_refused(tmp_path: Path) -> None:
    edit(tiny_folder(tmp_path), rank_pattern={"q_proj": 5})
    with pytest.raises(SoupError, match="declares rank 5 but A is"):
        read_adapter(tmp_path, "x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_config.json", None, "has no adapter_config.json"),
        ("adapter_config.json", "{", "adapter_config.json is not JSON"),
        ("adapter_config.json", "[]", "adapter_config.json is not a JSON object"),
        ("adapter_config.json", '{"peft_type": "LORA", "lora_alpha": 1}', "has no number r"),
        ("adapter_config.json", '{"peft_type": "LORA", "r": 4, "lora_alpha": null}', "has no number lora_alpha"),
        ("adapter_config.json", "{}", "LoRA adapters, not of None"),
        ("adapter_model.safetensors", None, r"has no adapter_model.safetensors; pickled weights \(\.bin\) are not"),
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


def irregular(name: str = "odd") -> Adapter:
    """Unequal ranks, and modules that differ from layer to layer."""
    whole = tiny.adapter(name, 3, rank=4).modules
    wide = tiny.adapter(name, 4, rank=6, scale=0.7).modules
    return Adapter(name, {Q0: whole[Q0], Q1: wide[Q1], DOWN0: wide[DOWN0]})


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


def test_regular_adapters_are_described_by_short_names(tmp_path: Path) -> None:
    write_adapter(tiny.adapter("x", 0), tmp_path / "even", "some/base")
    config = json.loads((tmp_path / "even" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    assert config["layers_to_transform"] == [0, 1]
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (4, 4, {})
    assert (config["base_model_name_or_path"], config["modules_to_save"]) == ("some/base", None)
    write_adapter(irregular(), tmp_path / "odd", "some/base")
    config = json.loads((tmp_path / "odd" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted([Q0, Q1, DOWN0])
    assert config["layers_to_transform"] is None
    assert config["r"] == 6
    assert config["rank_pattern"] == {Q0.replace(".", r"\."): 4}


@pytest.mark.parametrize(
    "paths",
    [
        ["score_proj", Q0],
        ["model.layers.0.experts.1.w1", "model.layers.1.experts.1.w1"],
        ["model.layers.0.self_attn.out", "model.layers.0.cross_attn.out"],
    ],
)
def test_modules_that_short_names_would_confuse_are_named_in_full(paths: list[str], tmp_path: Path) -> None:
    low = LoraPair(torch.ones(1, 2), torch.ones(2, 1), 1.0)
    write_adapter(Adapter("x", {path: LoraPair(low.a.clone(), low.b.clone(), 1.0) for path in paths}), tmp_path, "b")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == sorted(paths)


def test_nothing_cannot_be_written(tmp_path: Path) -> None:
    empty = merge_adapter(concatenate_adapters([tiny.adapter("a", 0)]), {}, "none")
    with pytest.raises(SoupError, match="none: nothing is left of it: these weights are the bare base"):
        write_adapter(empty, tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()
