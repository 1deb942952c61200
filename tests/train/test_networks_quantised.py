"""QLoRA: what the library is asked for, a clear refusal without bitsandbytes, and a real run where it is installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pydantic import ValidationError
from train.tiny_runs import expert_run, history, reward_run

from tureen_train.config import Model, RecipeError
from tureen_train.networks.quantised import make_quantisation
from tureen_train.networks.reward_model import add_lora, load_reward_model
from tureen_train.rewards.run import train_reward

HERE = find_spec("bitsandbytes") is not None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_train.networks.quantised.is_bitsandbytes_available", lambda: True)


def test_without_the_library_the_extra_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_train.networks.quantised.is_bitsandbytes_available", lambda: False)
    told = r"model\.quantise: bitsandbytes is not installed: pip install 'tureen\[qlora\]'"
    with pytest.raises(RecipeError, match=told):
        load_reward_model(base, Model(quantise="nf4"), tiny.reading(base))
    assert make_quantisation(Model()) is None


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_four_bits_are_nf4_twice_quantised(installed: None, precision: Any, dtype: torch.dtype) -> None:
    found = make_quantisation(Model(quantise="nf4", precision=precision))
    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert found.bnb_4bit_compute_dtype == dtype
    assert found.llm_int8_skip_modules == ["score", "lm_head"]


def test_eight_bits_leave_the_heads_whole(installed: None) -> None:
    found = make_quantisation(Model(quantise="int8"))
    assert (found.load_in_8bit, found.load_in_4bit) == (True, False)
    assert found.llm_int8_skip_modules == ["score", "lm_head"]


def test_weights_of_few_bits_are_not_trained_nor_taken_apart(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="quantise needs lora"):
        Model(quantise="nf4", lora=None)
    with pytest.raises(RecipeError, match="model.quantise: ZeRO-3 cannot shard quantised weights"):
        reward_run(base, tmp_path, model={"quantise": "nf4"}, scale={"zero": 3})
    with pytest.raises(RecipeError, match="model.quantise: an expert is trained on the unquantised base"):
        expert_run(base, tmp_path, model={"quantise": "nf4"})


@pytest.mark.skipif(not HERE, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore")  # the library's own, on CPUs
@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_a_quantised_base_learns_and_its_save_is_proven(tmp_path: Path, bits: Any) -> None:
    base = tiny.base(tmp_path / "base", hidden=64)  # a block of constants is 64 wide
    model = add_lora(load_reward_model(base, Model(quantise=bits), tiny.reading(base)), Model(quantise=bits))
    assert model.score.modules_to_save.default.weight.dtype == torch.float32
    changes: dict[str, Any] = {"model": {"quantise": bits}, "optimisation": {"max_steps": 20}}
    assert train_reward(reward_run(base, tmp_path, **changes)) is not None
    losses = [entry["loss"] for entry in history(tmp_path / "run") if "loss" in entry]
    assert losses[-1] < losses[0] / 2
