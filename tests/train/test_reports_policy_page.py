"""The page of a policy's run: its steps, what became of its rewards, and answers before and after training."""

import json
from pathlib import Path
from typing import Any

import pytest
from train.test_reports_policy_figures import PPO, ROUNDS

from tureen_train.reports.run_report import write_run_report

REWARDS = {
    "answers": 1200,
    "without_reward": 3,
    "truncated": {"kind": 2, "brief": 0},
    "failed": {"kind": {}, "brief": {"the server gave 503": 3}},
    "further": {"kind": {"texts whose end marks were removed": 4}},
}


def answer(text: str, total: float | None, finished: bool = True) -> dict[str, Any]:
    rewards = {} if total is None else {"kind": total, "brief": -total}
    return {"text": text, "tokens": 3, "finished": finished, "rewards": rewards, "total": total, "error": ""}


def row(number: int) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"question {number} with | and *stars*"}]
    before, after = answer("no\nanswer " * 100, 0.25, finished=False), answer("", None)
    return {"file": "heldout", "id": f"p{number}", "prompt": asked, "before": before, "after": after}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in PPO))
    (tmp_path / "account.json").write_text(json.dumps({"rewards": REWARDS}))
    (tmp_path / "held_answers.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in range(5)))
    return tmp_path


def page_of(folder: Path) -> str:
    return write_run_report(folder).read_text().replace("\\", "")


def test_the_steps_are_a_table(folder: Path) -> None:
    page = page_of(folder)
    assert "| figure | step 1 | step 2 |" in page
    assert "| reward: weighted sum | 0.5 | – |" in page
    assert "| reward: brief | -1 | -2 |" in page
    assert "| KL from the reference, nats per token | 0.25 | – |" in page


def test_rounds_are_told_as_rounds(folder: Path) -> None:
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ROUNDS))
    page = page_of(folder)
    assert "| figure | round 1 | round 2 |" in page
    assert "| reward: kind | 0.1 | 0.3 |" in page
    ends = [{**ROUNDS[1], "train_runtime": 2.0, "train_loss": 0.5, "round": each, "step": 3 * each} for each in (1, 2)]
    (folder / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in (*ROUNDS, *ends)))
    assert "6 optimiser steps in 2 rounds." in page_of(folder)


def test_what_became_of_the_rewards_is_told(folder: Path) -> None:
    page = page_of(folder)
    assert "1,200 answers were to be rewarded, those to held-out prompts among them; 3 have no reward" in page
    assert "| kind | 2 | none | 4 texts whose end marks were removed |" in page
    assert "| brief | 0 | 3 the server gave 503 | none |" in page


def test_three_prompts_are_shown_with_both_answers_and_their_rewards(folder: Path) -> None:
    page = page_of(folder)
    assert page.count("with | and *stars***") == 3
    assert "To 3 of the 5 held-out prompts" in page
    (shown, *_) = [line for line in page.splitlines() if line.startswith("| before |")]
    assert shown.startswith("| before | 0.25 | 0.25 | -0.25 | no answer no answer")
    assert shown.endswith("… (no end) |")
    assert page.count("| after | – | – | – | (empty) |") == 3


def test_a_run_without_answers_has_none_of_these_sections(folder: Path) -> None:
    for name in ("account.json", "held_answers.jsonl"):
        (folder / name).unlink()
    (folder / "history.jsonl").write_text('{"loss": 1.0, "step": 1}\n')
    page = page_of(folder)
    assert not any(f"## {title}" in page for title in ("Answers in training", "Rewards", "Answers before and after"))


def test_figures_before_and_after_stand_side_by_side(folder: Path) -> None:
    figures = {"reward_before": 0.25, "reward_after": 0.5, "length_before": 3}
    (folder / "metrics.json").write_text(json.dumps({"heldout": figures, "other": {"accuracy": 0.75}}))
    page = page_of(folder)
    assert "| figure | heldout, before | heldout, after | other |" in page
    assert "| reward | 0.25 | 0.5 | – |" in page
    assert "| length | 3 | – | – |" in page
