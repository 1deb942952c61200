"""The reward model in training: two heads on one backbone, what is trained of it, and how it is saved."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, ViTConfig
from transformers.utils import logging as library

from tureen_core.heads import LinearHead, pool_hidden_states
from tureen_core.reading import Reading
from tureen_train.config import Lora, Model, RecipeError
from tureen_train.networks.likelihood import compute_token_nll
from tureen_train.networks.reward_model import (
    add_lora,
    load_reward_model,
    make_lora_config,
    make_reward_class,
    make_reward_config,
)

FULL = Model(lora=None, precision="fp32")
LORA = Model(lora=Lora(rank=4, alpha=8, targets=["q_proj", "down_proj"]), precision="fp32")
IDS = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture
def reading(base: Path) -> Reading:
    return tiny.reading(base)


def causal(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


@pytest.mark.parametrize("pooling", ["eos", "last", "mean", "max"])
def test_rewards_are_the_cores_head_on_the_cores_pooling(base: Path, pooling: Any) -> None:
    model = load_reward_model(base, FULL, tiny.reading(base, pooling=pooling)).eval()
    with torch.no_grad():
        rewards = model(input_ids=IDS, attention_mask=MASK).rewards
        hidden = causal(base).model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        expected = pool_hidden_states(hidden, MASK, pooling, eos_appended=True) @ model.score.weight.T
    assert rewards.shape == (2, 1)
    assert torch.allclose(rewards, expected, atol=1e-5)


def test_likelihood_is_the_causal_models_own(base: Path, reading: Reading) -> None:
    model = load_reward_model(base, FULL, reading).eval()
    wanted = torch.tensor([[False, False, True, True, True], [False] * 5])
    with torch.no_grad():
        output = model(input_ids=IDS, attention_mask=MASK, imitated=wanted)
        logits = causal(base)(input_ids=IDS, attention_mask=MASK).logits
    assert output.nll.tolist() == pytest.approx(compute_token_nll(logits, IDS, wanted).tolist(), rel=1e-4)
    assert output.nll[1] == 0


def test_the_lm_head_runs_even_where_nothing_is_imitated(base: Path, reading: Reading) -> None:
    """Under ZeRO-3 a rank that skipped it would wait for the others for ever."""
    model, calls = load_reward_model(base, FULL, reading), []
    model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    output = model(input_ids=IDS, attention_mask=MASK, imitated=torch.zeros_like(MASK, dtype=torch.bool))
    assert output.nll.tolist() == [0, 0]
    assert len(calls) == 1
    model(input_ids=IDS, attention_mask=MASK)
    assert len(calls) == 1


def test_the_class_carries_the_backbones_name(base: Path, reading: Reading) -> None:
    config = make_reward_config(base, reading, objectives=3)
    opener = make_reward_class(config)
    assert opener.__name__ == "RewardLlamaForCausalLM"
    model = opener(config)
    assert isinstance(model.score, LinearHead)
    assert model.score.weight.shape == (3, 32)
    assert model(input_ids=IDS, attention_mask=MASK).rewards.shape == (2, 3)


def test_a_backbone_that_predicts_no_next_token_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.base: vit is not a causal language model"):
        make_reward_class(ViTConfig())


def test_a_new_head_raises_no_alarm(base: Path, reading: Reading, capfd: pytest.CaptureFixture[str]) -> None:
    library.enable_propagation()
    try:
        model = load_reward_model(base, FULL, reading)
    finally:
        library.disable_propagation()
    assert "MISSING" not in "".join(capfd.readouterr())
    assert 0 < model.score.weight.std().item() < 1


# --------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize(
    ("settings", "zero", "body", "head"),
    [
        (FULL, 0, torch.float32, torch.float32),
        (Model(lora=None), 0, torch.float32, torch.float32),  # bf16 by autocast: the optimiser needs the weights whole
        (Model(lora=None), 2, torch.bfloat16, torch.float32),  # DeepSpeed keeps the whole weights itself
        (Model(), 0, torch.bfloat16, torch.float32),
        (LORA, 3, torch.float32, torch.float32),
    ],
)
def test_what_stands_in_which_dtype(
    base: Path, reading: Reading, settings: Model, zero: int, body: torch.dtype, head: torch.dtype
) -> None:
    model = load_reward_model(base, settings, reading, zero)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == body
    assert model.score.weight.dtype == head
    assert model(input_ids=IDS, attention_mask=MASK).rewards.dtype == torch.float32


@pytest.mark.parametrize(("zero", "dtype"), [(0, torch.float32), (3, torch.bfloat16)])
def test_adapters_are_whole_unless_zero_3_wants_one_dtype(
    base: Path, reading: Reading, zero: int, dtype: torch.dtype
) -> None:
    model = add_lora(load_reward_model(base, Model(), reading, zero), Model(), zero)
    assert {weight.dtype for name, weight in model.named_parameters() if "lora_" in name} == {dtype}


# --------------------------------------------------------------------------- LoRA


def test_only_the_adapter_and_the_head_are_trained(base: Path, reading: Reading) -> None:
    model = add_lora(load_reward_model(base, LORA, reading), LORA)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name or "score.modules_to_save" in name for name in trained)
    assert any("score.modules_to_save" in name for name in trained)
    assert not any("k_proj" in name for name in trained)


def test_a_new_adapter_changes_nothing_yet(base: Path, reading: Reading) -> None:
    plain = load_reward_model(base, LORA, reading).eval()
    with torch.no_grad():
        before = plain(input_ids=IDS, attention_mask=MASK).rewards
        after = add_lora(plain, LORA).eval()(input_ids=IDS, attention_mask=MASK).rewards
    assert torch.equal(before, after)


@pytest.mark.parametrize(("top", "layers"), [(None, None), (1, [1]), (2, [0, 1]), (9, [0, 1])])
def test_layers_are_counted_from_the_top(
    base: Path, reading: Reading, top: int | None, layers: list[int] | None
) -> None:
    config = make_lora_config(Lora(top_layers=top), load_reward_model(base, FULL, reading))
    assert config.layers_to_transform == layers


@pytest.mark.parametrize("targets", [["q_porj"], ["q_proj", "q_porj"]])
def test_a_target_that_the_model_has_not_is_refused(base: Path, reading: Reading, targets: list[str]) -> None:
    """PEFT would train the others and say nothing."""
    with pytest.raises(RecipeError, match=r"model\.lora\.targets: RewardLlamaForCausalLM has no module 'q_porj'"):
        make_lora_config(Lora(targets=targets), load_reward_model(base, FULL, reading))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_keeps_the_gradient_of_an_adapter(base: Path, reading: Reading, reentrant: bool) -> None:
    """Re-entrant checkpoints of a frozen base pass no gradient unless their input asks for one."""
    settings = LORA.model_copy(update={"gradient_checkpointing": True})
    model = add_lora(load_reward_model(base, settings, reading), settings)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.train()(input_ids=IDS, attention_mask=MASK).rewards.sum().backward()
    grown = [weight.grad for name, weight in model.named_parameters() if "lora_B" in name]
    assert all(grad is not None and bool(grad.any()) for grad in grown)
