"""What TRL is told of rewards: each answer is rewarded once, and one without a reward teaches nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tureen.json_lines import encode_line
from tureen_train.policies.group_rewards import GroupRewards, fill_group, group_places, open_samples
from tureen_train.policies.rollouts.contract import Done, Prompt, Reward, Sample

PROMPTS = {name: Prompt(name, ({"role": "user", "content": name},)) for name in ("x", "y")}


class Counting:
    """Rewards an answer by its length, and fails for the text ``?``."""

    names = ("long", "short")
    compares = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]], done: Done) -> list[list[Reward]]:
        self.asked += [(prompt.id, each.text) for prompt, group in zip(prompts, samples, strict=True) for each in group]
        return [[self._one(each.text) for each in group] for group in samples]

    @staticmethod
    def _one(text: str) -> Reward:
        if text == "?":
            return Reward({}, None, "long: it broke")
        values = {"long": float(len(text)), "short": -float(len(text))}
        return Reward(values, values["long"] + 0.5 * values["short"])


def call(function: Any, texts: Sequence[str], names: Sequence[str], step: int = 0, **more: Any) -> list[float]:
    ids = [[ord(each) for each in text] for text in texts]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    state = SimpleNamespace(global_step=step)
    more = {"log_metric": lambda name, value: None, **more}
    found: list[float] = function(completions=completions, completion_ids=ids, id=names, trainer_state=state, **more)
    return found


def test_a_batch_is_rewarded_once_for_all_functions(tmp_path: Path) -> None:
    rewarder = Counting()
    samples = open_samples(tmp_path / "samples.jsonl", 0)
    long, short = GroupRewards(rewarder, rewarder.names, PROMPTS, [ord("!")], samples).list_functions()
    texts, names = ["a", "bb", "ccc!", "d"], ["x", "y", "x", "y"]
    assert call(long, texts, names) == [1, 2, 4, 1]
    assert call(short, texts, names) == [-1, -2, -4, -1]
    assert rewarder.asked == [("x", "a"), ("x", "ccc!"), ("y", "bb"), ("y", "d")]
    assert call(long, ["e"], ["x"]) == [1]
    assert (long.__name__, short.__name__) == ("long", "short")
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(each["prompt"], each["text"], each["finished"]) for each in lines[:2]] == [
        ("x", "a", False),
        ("x", "ccc!", True),
    ]
    assert (len(lines), lines[1]["rewards"], lines[1]["total"]) == (5, {"long": 4.0, "short": -4.0}, 2.0)


def test_the_same_ids_are_rewarded_anew_for_other_prompts() -> None:
    """A policy that has collapsed writes the same to all."""
    rewarder = Counting()
    (long, _) = GroupRewards(rewarder, rewarder.names, PROMPTS, [], None).list_functions()
    call(long, ["a"], ["x"])
    call(long, ["a"], ["y"])
    assert rewarder.asked == [("x", "a"), ("y", "a")]


def test_a_failed_answer_has_the_mean_of_its_group_so_that_its_advantage_is_zero() -> None:
    (long, _) = GroupRewards(Counting(), Counting.names, PROMPTS, [], None).list_functions()
    assert call(long, ["aa", "?", "aaaa", "?"], ["x", "x", "x", "y"]) == [2, 3, 4, 0]


def test_weights_of_a_prompt_leave_one_function_for_the_sum() -> None:
    weighed = {"x": Prompt("x", PROMPTS["x"].messages, {"long": 1.0})}
    (total,) = GroupRewards(Counting(), Counting.names, weighed, [], None).list_functions()
    assert call(total, ["aa", "aaaa"], ["x", "x"]) == [1, 2]


def test_the_figures_of_the_answers_are_logged_once_and_leave_out_what_failed() -> None:
    functions = GroupRewards(Counting(), Counting.names, PROMPTS, [ord("!")], None).list_functions()
    told: list[tuple[str, float]] = []

    def log(name: str, value: float) -> None:
        told.append((name, value))

    for function in functions:
        call(function, ["aa!", "?", "aaaaa", "?"], ["x", "x", "x", "y"], log_metric=log)
    found = dict(told)
    assert len(found) == len(told)
    assert found["answers/reward"] == 2  # of 1.5 and 2.5
    assert (found["answers/reward_long"], found["answers/reward_short"]) == (4, -4)
    assert (found["answers/failed"], found["answers/unfinished"], found["answers/length"]) == (0.5, 0.75, 2.5)


def test_places_are_grouped_by_prompt() -> None:
    assert group_places(["b", "a", "b"]) == {"b": [0, 2], "a": [1]}
    assert fill_group([Reward({}, None, "x")], ["r"]) == [{"r": 0.0, "total": 0.0}]


@pytest.mark.parametrize("cut", [0, 5])
def test_samples_after_the_checkpoint_are_dropped(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    lines = [encode_line({"step": step}).decode() for step in (0, 1, 2)]
    whole = "".join(lines)
    path.write_text(whole[: len(whole) - cut])
    open_samples(path, 2)
    assert path.read_text() == "".join(lines[:2])
    open_samples(tmp_path / "none.jsonl", 2)
