"""Answers of a policy in a file: what stands there, that it goes on after a cut, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from train.tiny_runs import expert_recipe
from typer.testing import CliRunner, Result

from tureen.records.reading import Reading
from tureen_train.__main__ import app
from tureen_train.config import ExpertRun, RecipeError, format_recipe, resolve_recipe
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.answer_file import AnswerCounts, claim_file, write_answers
from tureen_train.policies.rollouts.contract import Sample

SAMPLING = {"count": 3, "max_tokens": 6, "min_tokens": 2, "batch": 6}


def run(base: Path, folder: Path, **changes: Any) -> ExpertRun:
    found = resolve_recipe(expert_recipe(base, folder, **{"sampling": SAMPLING, **changes}))
    assert isinstance(found, ExpertRun)
    return found


def test_a_file_that_is_cut_goes_on_and_ends_the_same(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    settings = run(base, tmp_path, preferences={"add": "poles", "poles": ["P1A", "P2B"]})
    seen: list[int] = []
    counts = write_answers(settings, target, False, seen.append)
    whole = target.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert counts.prompts == len(rows) == sum(seen)
    assert counts.answers == 3 * len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["prompt"][-1]["content"].rsplit(" ", 1)[-1] for row in rows} == {"student.", "information."}
    for size in (0, 7, len(whole) // 2, len(whole) - 1, len(whole)):
        target.write_bytes(whole[:size])
        left = len(rows) - whole[:size].count(b"\n")
        assert write_answers(settings, target, False, ignore_progress).prompts == left
        assert target.read_bytes() == whole


def test_the_rows_are_read_as_unlabelled_answers(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    write_answers(run(base, tmp_path, data={"limit": 2}), target, False, ignore_progress)
    found = list(Reading(target, strict=True))
    assert len(found) == 2
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    for record, row in zip(found, rows, strict=True):
        kept = [answer for answer in row["candidates"] if answer[0]["content"].strip()]
        assert [list(answer) for answer in record.answers] == kept
        assert len(row["meta"]["finished"]) == 3


def test_answers_of_another_recipe_are_not_mixed_in(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    claim_file(run(base, tmp_path), target, False).append({"id": "a"})
    assert claim_file(run(base, tmp_path, watch={"log_every": 7}), target, False).rows == [{"id": "a"}]
    for changes, told in (
        ({"sampling": {**SAMPLING, "count": 2}}, "sampling"),
        ({"preferences": {"add": "combinations"}}, "preferences"),
        ({"optimisation": {"seed": 8}}, "optimisation.seed"),
    ):
        with pytest.raises(RecipeError, match=f"made by another recipe .not the same: {told}.*--overwrite"):
            claim_file(run(base, tmp_path, **changes), target, False)
    assert claim_file(run(base, tmp_path, optimisation={"seed": 8}), target, True).rows == []
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(RecipeError, match="is there already; name another file, or replace it with --overwrite"):
        claim_file(run(base, tmp_path), tmp_path / "other.jsonl", False)


def test_unfinished_and_empty_answers_are_counted() -> None:
    counts = AnswerCounts()
    counts.add([[Sample("a", 0, "x"), Sample("a", 1, " ")], [Sample("b", 0, "y", finished=False)]])
    assert counts == AnswerCounts(prompts=2, answers=3, unfinished=1, empty=1)


def test_a_policy_that_starts_from_an_expert_answers_as_the_expert(base: Path, tmp_path: Path) -> None:
    expert = tiny.expert(tmp_path / "expert", base, "expert", 1).folder
    written = []
    for name, start in (("bare", None), ("expert", str(expert))):
        recipe = expert_recipe(base, tmp_path, data={"limit": 4}, sampling=SAMPLING)
        recipe["model"]["start"] = start
        settings = resolve_recipe(recipe)
        assert isinstance(settings, ExpertRun)
        write_answers(settings, tmp_path / f"{name}.jsonl", False, ignore_progress)
        written.append((tmp_path / f"{name}.jsonl").read_text())
    assert written[0] != written[1]


def test_an_engine_that_serves_a_run_is_refused(base: Path, tmp_path: Path) -> None:
    settings = run(base, tmp_path, sampling={**SAMPLING, "engine": "vllm"})
    with pytest.raises(RecipeError, match="serve the model with vLLM, and set engine: server"):
        write_answers(settings, tmp_path / "answers.jsonl", False, ignore_progress)


def sampled(recipe: str | Path, target: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["sample", str(recipe), str(target), *more])


def test_the_command_writes_the_file_and_says_what_is_in_it(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(format_recipe(run(base, tmp_path, data={"limit": 3})))
    result = sampled(path, tmp_path / "out.jsonl", "--set", "sampling.count=2")
    assert result.exit_code == 0, result.output
    assert f"wrote 6 answers to 3 prompts to {tmp_path / 'out.jsonl'}; of them " in result.stdout
    again = sampled(path, tmp_path / "out.jsonl", "--set", "sampling.count=2")
    assert "wrote 0 answers to 0 prompts" in again.stdout
    refused = sampled("starter/domain-reward", tmp_path / "out.jsonl")
    assert refused.exit_code == 1
    assert "kind: reward writes no answers; name the recipe of an expert" in refused.stderr
