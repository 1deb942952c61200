"""What a recipe of pairs or steps must say of its reading, and what the packaged ones take from RLHFlow."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from train.tiny_runs import reward_run

from tureen_train.config import PairLoss, RecipeError, RewardRun, format_recipe, read_recipe, resolve_recipe


@pytest.mark.parametrize("method", ["pair", "steps"])
@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ({"eos": "append"}, "reading.eos: loss.method: {} reads inside of a text; use none"),
        ({"pooling": "mean"}, "loss.method: {} needs pooling: last or eos"),
        ({"truncation": "right"}, "loss.method: {} needs pooling: last or eos, and truncation: left"),
    ],
)
def test_pairs_and_steps_are_read_at_their_last_token(
    method: str, reading: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=words.format(method)):
        reward_run(tmp_path, tmp_path, loss={"method": method}, reading=reading)


@pytest.mark.parametrize("method", ["pair", "steps"])
def test_no_eos_is_appended_to_them_and_the_resolved_recipe_says_so(method: str, tmp_path: Path) -> None:
    run = reward_run(tmp_path, tmp_path, loss={"method": method})
    assert (run.reading.eos, run.loss.input, run.loss.rows) == ("none", method, 1)
    assert resolve_recipe(yaml.safe_load(format_recipe(run))) == run
    assert reward_run(tmp_path, tmp_path).reading.eos == "append"


@pytest.mark.parametrize(
    ("name", "rate", "accumulation", "bos"),
    [("gemma2b", 1e-5, 32, "add"), ("llama3-8b", 2e-6, 64, "none"), ("mistral-7b", 5e-6, 64, "add")],
)
def test_bradley_terry_recipes_are_as_published_but_for_the_leak(
    name: str, rate: float, accumulation: int, bos: str
) -> None:
    run = read_recipe(f"rlhflow/bradley-terry-{name}")
    assert isinstance(run, RewardRun)
    steps = run.optimisation
    assert (steps.learning_rate, steps.accumulation, steps.batch, steps.epochs) == (rate, accumulation, 1, 1)
    assert (steps.warmup, steps.schedule, steps.weight_decay) == (0.03, "cosine", 0.001)
    assert (run.reading.max_length, run.reading.truncation, run.reading.bos) == (4096, "left", bos)
    assert (run.model.lora, run.model.precision) == (None, "bf16")
    assert run.data.holdout > 0
    assert not run.data.eval


def test_the_recipe_of_pairs_starts_from_the_published_tokens() -> None:
    run = read_recipe("rlhflow/pair")
    assert isinstance(run, RewardRun)
    assert isinstance(run.loss, PairLoss)
    assert (run.model.head, run.loss.tokens, run.loss.sides) == ("tokens", ("A", "B"), "random")


@pytest.mark.parametrize("targets", ["process", "outcome"])
def test_the_recipes_of_steps_say_what_they_judge(targets: str) -> None:
    run = read_recipe(f"rlhflow/{targets}")
    assert run.model_dump()["loss"] == {
        "method": "steps",
        "targets": targets,
        "tokens": ("+", "-"),
        "context": "steps",
    }
