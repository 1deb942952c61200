"""The answers that are set against the data's: who writes them, and that each command is one that reads its options."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tureen_train.__main__ import app
from tureen_train.config import ExpertRun, read_recipe
from tureen_train.starter import own_answers
from tureen_train.starter.plans import ANSWERS_BY_DOMAIN, CHEATED, find_opposed, make_command

ROW = {"query": "Why?", "responses": {"academy": "As shown.", "business": "For profit.", "normal": "Because."}}


def test_a_first_reward_its_experts_and_the_base_come_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, runs = tmp_path / "data", tmp_path / "out", tmp_path / "runs"
    (data / "dsp").mkdir(parents=True)
    (data / ANSWERS_BY_DOMAIN).write_text(json.dumps([ROW]))
    asked: list[list[str]] = []

    def train_stage(run: ExpertRun, called: str) -> Path:
        asked.append([called, *(str(each.model_dump()["path"]) for each in run.rewards)])
        return Path(run.output) / "artifact"

    def run(words: list[str], check: bool) -> None:
        assert check
        asked.append(words[3:])
        if words[3] == "sample":
            read_recipe(words[4], words[7::2])
            answer = {"prompt": [{"role": "user", "content": "Why?"}], "candidates": [f"nonsense of {len(asked)}"]}
            Path(words[5]).parent.mkdir(parents=True, exist_ok=True)
            Path(words[5]).write_text(json.dumps(answer) + "\n")
        if words[3] == "transform":
            assert CliRunner().invoke(app, words[3:]).exit_code == 0

    monkeypatch.setattr(own_answers, "train_stage", train_stage)
    monkeypatch.setattr("subprocess.run", run)
    own_answers.write_opposed(data, out, runs)
    assert asked[0] == make_command(f"first/rewards/{CHEATED}", data, runs)[3:]
    reward = str(runs / "first" / "rewards" / CHEATED / "artifact")
    trained = [each for each in asked if "stage" in each[0]]
    assert trained[0] == ["academy, stage 1", str(out / "rewards" / "academy")]
    assert trained[-1] == [f"{CHEATED}, stage 2", reward]
    (row,) = [json.loads(line) for line in find_opposed(runs).read_text().splitlines()]
    answers = [each[-1]["content"] for each in row["answers"]]
    assert answers[0] == "For profit."
    assert len([each for each in answers if each.startswith("nonsense")]) == 3
