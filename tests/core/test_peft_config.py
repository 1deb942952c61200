"""A LoRA's configuration: what is understood, refused by name, and written; beside PEFT itself."""

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
from core.adapters import DOWN0, Q0, Q1, edit_config, irregular, peft_model, saved, tiny_folder, write_raw
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import (
    IA3Config,
    KasaConfig,
    LoraConfig,
    MontecloraConfig,
    VeloraConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM

from tureen_core.adapter_files import PREFIX, read_adapter, write_adapter
from tureen_core.lora import Adapter, LoraPair, SoupError
from tureen_core.peft_config import REFUSED, UNDERSTOOD

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
    edit_config(tmp_path, **{key: {"nblocks": 2} if key.endswith(("config", "bdlora")) else True})
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
    edit_config(tmp_path, use_tomorrow=False, tomorrow_config=None)
    read_adapter(tmp_path, "x")
    edit_config(tmp_path, tomorrow_config={"beta": 1})
    with pytest.raises(SoupError, match=r"adapter_config\.json sets tomorrow_config, which is not known here"):
        read_adapter(tmp_path, "x")


def test_a_rank_that_no_tensor_has_is_refused(tmp_path: Path) -> None:
    edit_config(tiny_folder(tmp_path), rank_pattern={"q_proj": 5})
    with pytest.raises(SoupError, match="declares rank 5 but A is"):
        read_adapter(tmp_path, "x")


# --------------------------------------------------------------------------- writing


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
