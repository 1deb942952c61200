"""Answers to held-out prompts before and after training: each is rewarded alone, or one against the other."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from train.tiny_rounds import rounds_run

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.policies.held_answers import AFTER, BEFORE, HeldAnswers
from tureen_train.policies.method import Task
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.rounds import Write, Written
from tureen_train.records.run_data import load_data
from tureen_train.runs.rereading import make_expert_reading


def say(text: str) -> Write:
    """Write one answer to each prompt, a token for each letter."""

    def write(prompts: Sequence[Prompt]) -> list[list[Written]]:
        return [[Written(Sample(each.id, 0, text, tuple(range(len(text)))))] for each in prompts]

    return write


class Lengths:
    """Rewards an answer by its length; the numbers of the answers that it was asked about together are kept."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        self.asked += [[each.number for each in row] for row in samples]
        return [[Reward({"long": float(len(each.text))}, float(len(each.text))) for each in row] for row in samples]


@pytest.fixture
def task(base: Path, tmp_path: Path) -> Task:
    run = rounds_run(base, tmp_path, "rejection")
    renderer = Renderer(load_tokenizer(base), make_expert_reading(run, base))
    return Task(run, base, load_data(run.data, prompts=True), renderer, resume=False)


def held_of(task: Task) -> HeldAnswers:
    return HeldAnswers(task, task.folder / "rollouts", {"seed": 7}, Crew())


@pytest.mark.parametrize("compares", [False, True])
def test_both_answers_stand_side_by_side_with_their_rewards(compares: bool, task: Task) -> None:
    held, reward = held_of(task), Lengths()
    held.write(BEFORE, say("abc"))
    held.write(AFTER, say("abcde"))
    figures = held.compare(reward, compares)["heldout"]
    assert (figures["reward_before"], figures["reward_after"], figures["length_after"]) == (3, 5, 5)
    count = len(held.prompts["heldout"])
    assert reward.asked == ([[0, 1]] * count if compares else [[0]] * 2 * count)
    rows = [json.loads(line) for line in (task.folder / "held_answers.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [prompt.id for prompt in held.prompts["heldout"]]
    assert rows[0]["file"] == "heldout"
    assert rows[0]["after"] == {
        "text": "abcde",
        "tokens": 5,
        "finished": True,
        "rewards": {"long": 5.0},
        "total": 5.0,
        "error": "",
    }


def test_what_is_written_and_rewarded_is_neither_again(task: Task) -> None:
    first = held_of(task)
    first.write(BEFORE, say("abc"))
    assert first.reward(BEFORE, Lengths())["heldout"]["reward"] == 3
    again, reward = held_of(task), Lengths()
    again.write(BEFORE, say("other"))
    assert again.reward(BEFORE, reward)["heldout"]["reward"] == 3
    assert reward.asked == []


def test_without_held_out_prompts_there_is_no_file(task: Task) -> None:
    task.folder.mkdir(parents=True)
    (task.folder / "held_answers.jsonl").write_text("of an earlier run\n")
    held = held_of(replace(task, data=replace(task.data, eval={})))
    held.write(BEFORE, say("abc"))
    held.write(AFTER, say("abc"))
    assert held.compare(Lengths(), compares=False) == {}
    assert not (task.folder / "held_answers.jsonl").exists()
