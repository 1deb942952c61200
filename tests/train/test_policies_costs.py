"""The cost of a recipe, counted by hand, and what a run of it really writes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from train.tiny_rounds import rounds_run
from typer.testing import CliRunner

from tureen_train.__main__ import app
from tureen_train.config import ExpertRun, RecipeError, format_recipe
from tureen_train.kinds import estimate_run
from tureen_train.policies import opening
from tureen_train.policies.costs import Cost, estimate_cost
from tureen_train.policies.run import train_policy

JUDGE = {"source": "judge", "url": "http://127.0.0.1:1", "model": "m", "criterion": "helpfulness"}


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights is an error."""
    monkeypatch.setattr(opening, "load_policy_model", None)


def cost(base: Path, folder: Path, method: str, **changes: Any) -> Cost:
    return estimate_cost(rounds_run(base, folder, method, **changes))


def count_lines(folder: Path, pattern: str) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob(pattern))


def test_rounds_answer_their_prompts_and_the_held_out_ones_twice(base: Path, tmp_path: Path) -> None:
    found = cost(base, tmp_path, "rejection", policy={"rounds": 3, "prompts": 5})
    assert (found.prompts, found.answers, found.held, found.tokens) == (8, 3 * 5 * 4, 2 * 8, (60 + 16) * 6)
    assert found.judge_calls == {}
    every = cost(base, tmp_path, "rejection", policy={"rounds": 3, "prompts": 500})
    assert every.answers == 3 * 8 * 4


def test_a_judge_is_asked_about_each_pair_in_both_orders(base: Path, tmp_path: Path) -> None:
    found = cost(base, tmp_path, "iterative-dpo", rewards=[JUDGE, {**JUDGE, "name": "once", "orders": "once"}])
    pairs = 2 * 8 * 6 + 8  # six pairs of four answers in two rounds, and the held-out answers before and after
    assert found.judge_calls == {"helpfulness": 2 * pairs, "once": pairs}


def test_ppo_answers_prompts_in_each_step_and_held_out_ones_before_between_and_after(
    base: Path, tmp_path: Path
) -> None:
    policy = {"method": "ppo", "steps": 7, "prompts": 3}
    watch = {"eval_every": 3, "eval_at_start": False}
    run = rounds_run(base, tmp_path, "rejection").model_dump()
    recipe = {**run, "policy": policy, "watch": watch, "optimisation": {}}
    found = estimate_cost(ExpertRun.model_validate(recipe))
    assert (found.answers, found.held) == (7 * 3 * 4, 4 * 8)


def test_groups_fill_whole_steps(base: Path, tmp_path: Path) -> None:
    run = rounds_run(base, tmp_path, "rejection").model_dump()
    recipe = {**run, "policy": {"method": "grpo"}, "optimisation": {"batch": 3, "epochs": 2}}
    found = estimate_cost(ExpertRun.model_validate(recipe))
    assert (found.answers, found.held) == (5 * 3 * 4, 2 * 8)


def test_prompts_that_are_left_out_are_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no prompt is left to answer: 8 longer than sampling.max_prompt"):
        cost(base, tmp_path, "rejection", sampling={"max_prompt": 3})


def test_a_run_writes_what_was_told(base: Path, tmp_path: Path) -> None:
    run = rounds_run(base, tmp_path, "rejection", policy={"prompts": 5})
    found = estimate_cost(run)
    assert train_policy(run) is not None
    rounds = Path(run.output) / "rounds"
    assert count_lines(rounds, "0*/samples.jsonl") * run.sampling.count == found.answers
    assert count_lines(rounds, "before/*/samples.jsonl") + count_lines(rounds, "after/*/samples.jsonl") == found.held


@pytest.mark.usefixtures("no_weights")
def test_the_command_prints_a_table_and_writes_nothing(base: Path, tmp_path: Path) -> None:
    run = rounds_run(base, tmp_path, "iterative-dpo", rewards=[JUDGE])
    path = tmp_path / "recipe.yaml"
    path.write_text(format_recipe(run))
    result = CliRunner().invoke(app, ["run", str(path), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "answers in training" in result.output
    assert "requests to the judge of helpfulness, at most" in result.output
    assert not Path(run.output).exists()


def test_a_recipe_that_writes_nothing_says_so(base: Path, tmp_path: Path) -> None:
    run = rounds_run(base, tmp_path, "rejection").model_dump()
    plain = ExpertRun.model_validate({**run, "policy": {"method": "dpo"}, "rewards": []})
    assert estimate_run(plain) == []
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(plain.model_dump(mode="json")))
    result = CliRunner().invoke(app, ["run", str(path), "--dry-run"])
    assert "writes no answers" in result.output
