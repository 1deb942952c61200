"""``transform`` from the command line: what each writes, says, and exits with."""

import json
from pathlib import Path
from typing import Any

import pytest
from train.test_judge_model_judges import artifact
from typer.testing import CliRunner, Result

from tureen.records.reading import Reading
from tureen.records.schema import Record
from tureen_train.__main__ import app


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["transform", *map(str, arguments)])


def rows(path: Path, *items: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def two(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": f"{prompt} yes", "rejected": f"{prompt} no", **more}


def written(path: Path) -> list[Record]:
    return list(Reading(path, strict=True))


def test_the_filter_says_what_it_left_out(tmp_path: Path) -> None:
    system = [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]
    source = rows(
        tmp_path / "in.jsonl", two("a"), {**two("b"), "prompt": system, "chosen": [said("x")], "rejected": [said("y")]}
    )
    result = run("rlhflow-filter", source, tmp_path / "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "left out, an odd number of messages: 1" in result.stderr
    assert f"wrote 1 pairs to {tmp_path / 'out.jsonl'}" in result.stdout
    assert [record.prompt[0]["content"] for record in written(tmp_path / "out.jsonl")] == ["a"]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_scores_far_apart_are_kept(tmp_path: Path) -> None:
    items = [two(name, chosen_score=score, rejected_score=2) for name, score in (("a", 9), ("b", 3))]
    result = run("score-ratio", rows(tmp_path / "in.jsonl", *items), tmp_path / "out.jsonl", "--ratio", "3")
    assert result.exit_code == 0, result.output
    assert [record.scores for record in written(tmp_path / "out.jsonl")] == [(9, 2)]
    assert "left out, a ratio of 3 or less: 1" in result.stderr


def test_rated_answers_become_pairs(tmp_path: Path) -> None:
    items = [{"prompt": "q", "response": text, "helpful": rating, "dull": 3} for text, rating in (("x", 1), ("y", 4))]
    source = rows(tmp_path / "in.jsonl", *items)
    result = run("mean-pairs", source, tmp_path / "out.jsonl", "--attribute", "helpful")
    assert result.exit_code == 0, result.output
    (record,) = written(tmp_path / "out.jsonl")
    assert (record.answers[0][0]["content"], record.scores) == ("y", (4, 1))


def test_augmented_rows_follow_the_given_pairs(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.jsonl", *map(two, "abcd"))
    assert run("rrm", source, tmp_path / "out.jsonl", "--seed", "2").exit_code == 0
    made = written(tmp_path / "out.jsonl")
    assert len(made) == 4 + 4 * 14
    assert sum(record.scores[0] == record.scores[1] for record in made) == 4 * 6
    assert run("rrm", source, tmp_path / "extra.jsonl", "--seed", "2", "--extra-only").exit_code == 0
    assert written(tmp_path / "extra.jsonl") == made[4:]


def test_pairs_are_labelled_by_an_artifact(base: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    artifact(tmp_path / "model", base)
    items = [two(f"prompt {number}") for number in range(8)]
    source = rows(tmp_path / "in.jsonl", *items, {"instruction": "q", "output": ["x", "y", "z"]})
    result = run("pseudo-label", tmp_path / "model", source, tmp_path / "out.jsonl", "--threshold", "0.5")
    assert result.exit_code == 0, result.output
    made = written(tmp_path / "out.jsonl")
    assert len(made) == 8
    assert all(record.meta["chosen_prob"] > 0.5 for record in made)
    assert "left out, not two answers to a common prompt: 1" in result.stderr
    turned = sum(record.answers[0][0]["content"].endswith("no") for record in made)
    assert f"pairs whose label now contradicts their file: {turned}" in result.stderr
    parts = []
    for part in ("0/2", "1/2"):
        out = tmp_path / f"{part[0]}.jsonl"
        run("pseudo-label", tmp_path / "model", source, out, "--threshold", "0.5", "--shard", part)
        parts += written(out)
    assert sorted(map(str, (record.prompt for record in parts))) == sorted(map(str, (each.prompt for each in made)))


@pytest.mark.parametrize("shard", ["1", "2/2", "x/y"])
def test_a_part_that_is_none_is_one_sentence(tmp_path: Path, shard: str) -> None:
    source = rows(tmp_path / "in.jsonl", two("a"))
    result = run("pseudo-label", tmp_path, source, tmp_path / "out.jsonl", "--shard", shard)
    assert result.exit_code == 1
    assert f"as 0/4, not {shard!r}" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_nothing_left_is_one_sentence(tmp_path: Path) -> None:
    result = run("rrm", rows(tmp_path / "in.jsonl", two("a")), tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "RRM needs at least three pairs" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()
