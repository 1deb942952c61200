"""A round's files: what an unbroken run writes, and that a run cut at any byte writes the same and nothing twice."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tureen_train.config import RecipeError
from tureen_train.policies.rollouts.contract import Prompt, Reward, Sample
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.policies.rollouts.rounds import (
    PROMPTS,
    REWARDED_AT_ONCE,
    REWARDS,
    SAMPLES,
    Answered,
    Written,
    collect_answers,
    read_about,
    sum_logprobs,
    write_about,
)

SETTINGS = {"seed": 3, "sampling": {"count": 2}}


def make_prompts(count: int) -> list[Prompt]:
    return [Prompt(f"file:{at}", ({"role": "user", "content": f"q{at}"},)) for at in range(count)]


class Counting:
    """A policy and its rewards, whose answers depend on the prompt alone, and which count what they are asked."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.written: Counter[str] = Counter()
        self.rewarded: Counter[str] = Counter()
        self.calls: list[int] = []
        self._dies_after = dies_after

    def write(self, prompts: Sequence[Prompt]) -> list[list[Written]]:
        self._live()
        self.calls.append(len(prompts))
        self.written.update(prompt.id for prompt in prompts)
        return [
            [Written(Sample(prompt.id, n, f"ä {prompt.id}\u2028{n}", (n, 7), n > 0), -0.1 * n, None) for n in (0, 1)]
            for prompt in prompts
        ]

    def reward(self, prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        self._live()
        self.rewarded.update(prompt.id for prompt in prompts)
        return [
            [
                Reward({"a": len(each.text) / 3}, each.number + 0.5) if each.number else Reward({}, None, "failed")
                for each in own
            ]
            for own in samples
        ]

    def _live(self) -> None:
        if self._dies_after is not None:
            self._dies_after -= 1
            if self._dies_after < 0:
                raise KeyboardInterrupt


def collect(folder: Path, policy: Counting, count: int = 5, settings: Any = SETTINGS) -> Answered:
    return collect_answers(folder, make_prompts(count), settings, policy.write, policy.reward, 2, Crew())


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    collect(tmp_path / "whole", Counting())
    return read_files(tmp_path / "whole")


def test_a_round_writes_its_prompts_answers_and_rewards(tmp_path: Path) -> None:
    policy = Counting()
    answered = collect(tmp_path / "001", policy)
    assert policy.calls == [2, 2, 1]
    assert answered.samples[1][1] == Sample("file:1", 1, "ä file:1\u20281", (1, 7), True)
    assert answered.written[1][1].logprob == -0.1
    assert answered.rewards[1] == [Reward({}, None, "failed"), Reward({"a": 10 / 3}, 1.5)]
    rows = {
        name: [json.loads(line) for line in (tmp_path / "001" / name).read_text().split("\n") if line]
        for name in (PROMPTS, SAMPLES, REWARDS)
    }
    assert rows[PROMPTS][1] == {"id": "file:1", "prompt": [{"role": "user", "content": "q1"}]}
    assert rows[SAMPLES][1]["prompt"] == rows[REWARDS][1]["prompt"] == "file:1"
    assert rows[REWARDS][1]["rewards"][0] == {"values": {}, "total": None, "error": "failed"}
    assert [len(each) for each in rows.values()] == [5, 5, 5]
    assert read_about(tmp_path / "001") == {"settings": SETTINGS}


def test_a_finished_round_is_read_without_any_call(tmp_path: Path) -> None:
    first = collect(tmp_path / "001", Counting())
    again = Counting(dies_after=0)
    assert collect(tmp_path / "001", again) == first


@pytest.mark.parametrize("name", [SAMPLES, REWARDS])
def test_a_file_that_is_cut_at_any_byte_is_continued(name: str, tmp_path: Path, whole: dict[str, bytes]) -> None:
    text = whole[name]
    ends = [at for at, byte in enumerate(text) if byte == ord("\n")]
    for size in sorted({*range(0, len(text), 11), *(end + step for end in ends for step in (-1, 0, 1, 2))}):
        folder = tmp_path / f"{name}-{size}"
        folder.mkdir()
        for other, held in whole.items():
            (folder / other).write_bytes(held)
        (folder / name).write_bytes(text[:size])
        if name == SAMPLES:  # rewards are written only after all answers
            (folder / REWARDS).unlink()
        policy = Counting()
        collect(folder, policy)
        lines = text[:size].count(b"\n")
        made = policy.written if name == SAMPLES else policy.rewarded
        assert made == Counter(f"file:{at}" for at in range(lines, 5)), size
        assert name == SAMPLES or not policy.written
        assert read_files(folder) == whole, size


@pytest.mark.parametrize("calls", range(5))
def test_a_run_that_dies_at_any_call_is_continued(calls: int, tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "001"
    first, second = Counting(dies_after=calls), Counting()
    if calls < 4:
        with pytest.raises(KeyboardInterrupt):
            collect(folder, first)
    collect(folder, second)
    assert read_files(folder) == whole
    everything = Counter(f"file:{at}" for at in range(5))
    assert first.written + second.written == everything
    assert first.rewarded + second.rewarded == everything


def test_a_round_that_dies_before_its_description_begins_anew(tmp_path: Path, whole: dict[str, bytes]) -> None:
    (tmp_path / "001").mkdir()
    (tmp_path / "001" / PROMPTS).write_bytes(whole[PROMPTS][:40])
    collect(tmp_path / "001", Counting())
    assert read_files(tmp_path / "001") == whole


def test_rewards_are_asked_for_many_prompts_at_a_time(tmp_path: Path) -> None:
    policy = Counting(dies_after=100)
    sizes: list[int] = []

    def reward(prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]]) -> list[list[Reward]]:
        sizes.append(len(prompts))
        return policy.reward(prompts, samples)

    prompts = make_prompts(REWARDED_AT_ONCE + 3)
    collect_answers(tmp_path / "001", prompts, SETTINGS, policy.write, reward, 8, Crew())
    assert sizes == [REWARDED_AT_ONCE, 3]


def test_a_round_of_another_recipe_is_refused(tmp_path: Path) -> None:
    collect(tmp_path / "001", Counting())
    with pytest.raises(RecipeError, match=r"begun with another recipe \(not the same: seed\)"):
        collect(tmp_path / "001", Counting(), settings={**SETTINGS, "seed": 4})
    with pytest.raises(RecipeError, match="not the same: prompts"):
        collect(tmp_path / "001", Counting(), count=4)


def test_an_answer_to_a_strange_prompt_is_refused(tmp_path: Path) -> None:
    collect(tmp_path / "001", Counting())
    with (tmp_path / "001" / SAMPLES).open("a") as file:
        file.write('{"prompt":"other:1","answers":[]}\n')
    with pytest.raises(RecipeError, match="a line of other:1"):
        collect(tmp_path / "001", Counting())


def test_the_description_grows_in_parts(tmp_path: Path) -> None:
    assert read_about(tmp_path) == {}
    write_about(tmp_path, settings={"a": 1})
    write_about(tmp_path, kept=3)
    assert read_about(tmp_path) == {"settings": {"a": 1}, "kept": 3}


def test_the_log_probability_of_an_answer_is_the_sum_over_its_tokens() -> None:
    assert sum_logprobs(Sample("p", 0, "x", (1, 2), logprobs=(-1.0, -0.5))) == -1.5
    assert sum_logprobs(Sample("p", 0, "x")) is None
