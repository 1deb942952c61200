"""RewardBench 2: best of N, and Ties against the formula written anew with loops in float64."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadRecord
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.rewardbench2 import (
    SUBSETS,
    credit_best,
    judge_rewardbench2,
    judge_ties,
    read_rewardbench2,
    score_ties,
    tabulate_tie_gaps,
)

ROW: dict[str, Any] = {
    "id": "12",
    "prompt": "Name a prime.",
    "chosen": ["7"],
    "rejected": ["9", "8", "6"],
    "num_correct": 1,
    "num_incorrect": 3,
    "total_completions": 4,
    "models": ["human"],
    "subset": "Math",
    "additional_metadata": {"category": None},
}


def item(name: str, right: int, wrong: int) -> Item:
    subset = name.partition("/")[0]
    answers = tuple((assistant_turn(str(number)),) for number in range(right + wrong))
    return Item(name, (user_turn("q"),), answers, (1.0,) * right + (0.0,) * wrong, subset, "f")


@pytest.mark.parametrize(
    ("rewards", "gained"),
    [
        ([2, 1, 0, 1], 1),
        ([1, 2, 0, 0], 0),
        ([1, 1, 0, 0], 1 / 2),
        ([1, 1, 1, 1], 1 / 4),
        ([0, 1, 1, 0], 0),
    ],
)
def test_the_first_answer_shares_the_maximum(rewards: list[float], gained: float) -> None:
    assert credit_best(rewards) == gained


# --------------------------------------------------------------------------- ties


def by_loops(ref: dict[int, list[float]], tied: dict[int, tuple[int, list[float]]]) -> float:
    """The published formula: prompts by number, right answers first (one in ``ref``)."""

    def above(right: int, scores: list[float]) -> np.float64:
        return np.float64(min(scores[:right])) - np.float64(max(scores[right:]))

    acc_ref = sum(above(1, scores) > 0 for scores in ref.values()) / len(ref)
    acc_tied = sum(above(*each) > 0 for each in tied.values()) / len(tied)
    preferred, hard, margin = [], [], []
    for prompt in set(ref) & set(tied):
        right, scores = tied[prompt]
        within = np.float64(max(scores[:right])) - np.float64(min(scores[:right]))
        least = min(above(1, ref[prompt]), above(right, scores))
        preferred.append(above(right, scores) > within)
        hard.append(least > within)
        if within > 0:
            margin.append(math.tanh(least / within - 1))
        else:
            margin.append(0.0 if least == 0 else math.copysign(1.0, least))
    return float(
        0.3 * acc_tied + 0.3 * acc_ref + 0.2 * np.mean(preferred) + 0.2 * np.mean(hard) + 0.01 * np.mean(margin)
    )


def of(ref: dict[int, list[float]], tied: dict[int, tuple[int, list[float]]]) -> tuple[list[Item], list[list[float]]]:
    items = [item(f"Ties/ref:{prompt}", 1, len(scores) - 1) for prompt, scores in ref.items()]
    items += [item(f"Ties/tied:{prompt}", right, len(scores) - right) for prompt, (right, scores) in tied.items()]
    return items, [*ref.values(), *(scores for _, scores in tied.values())]


def test_a_perfect_model_by_hand() -> None:
    """Right answers within 1, wrong ones 3 and 5 below: tanh(3/1 − 1) is what stands beyond the whole."""
    items, rewards = of({1: [5.0, 0.0]}, {1: (2, [4.0, 3.0, 0.0])})
    assert score_ties(tabulate_tie_gaps(items, rewards)) == pytest.approx(1 + 0.01 * math.tanh(2))


def test_a_hopeless_model_by_hand() -> None:
    items, rewards = of({1: [0.0, 1.0]}, {1: (2, [0.0, 1.0, 2.0])})
    assert score_ties(tabulate_tie_gaps(items, rewards)) == pytest.approx(0.01 * math.tanh(-3))


def test_right_answers_that_differ_more_than_right_from_wrong() -> None:
    """Accurate (.3 + .3), the spread 4 is more than the gap 1."""
    items, rewards = of({1: [5.0, 0.0]}, {1: (2, [6.0, 2.0, 1.0])})
    assert score_ties(tabulate_tie_gaps(items, rewards)) == pytest.approx(0.6 + 0.01 * math.tanh(1 / 4 - 1))


@pytest.mark.parametrize(
    ("rewards", "margin"), [([2.0, 2.0, 1.0], 1.0), ([2.0, 2.0, 3.0], -1.0), ([2.0, 2.0, 2.0], 0.0)]
)
def test_equal_right_answers_divide_by_zero_as_published(rewards: list[float], margin: float) -> None:
    items, table = of({1: [9.0, 0.0]}, {1: (2, rewards)})
    above = float(rewards[0] > rewards[2])
    assert score_ties(tabulate_tie_gaps(items, table)) == pytest.approx(0.3 + 0.7 * above + 0.01 * margin)


def test_a_prompt_with_one_item_counts_for_accuracy_only() -> None:
    items, rewards = of({1: [5.0, 0.0], 2: [0.0, 5.0]}, {1: (2, [4.0, 3.0, 0.0]), 3: (2, [4.0, 3.0, 9.0])})
    assert score_ties(tabulate_tie_gaps(items, rewards)) == pytest.approx(0.15 + 0.15 + 0.4 + 0.01 * math.tanh(2))
    items, rewards = of({1: [5.0, 0.0]}, {})
    assert score_ties(tabulate_tie_gaps(items, rewards)) == pytest.approx(0.3)


@pytest.mark.parametrize("seed", range(8))
def test_any_rewards_equal_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ref = {int(prompt): (rng.integers(0, 12, size=4) / 2).tolist() for prompt in rng.permutation(20)[:15]}
    tied = {
        int(prompt): (int(rng.integers(2, 7)), (rng.integers(0, 12, size=12) / 2 + np.r_[[3] * 6, [0] * 6]).tolist())
        for prompt in rng.permutation(20)[:15]
    }
    items, rewards = of(ref, tied)
    order = rng.permutation(len(items))
    shuffled = [items[place] for place in order], [rewards[place] for place in order]
    found = judge_ties(*shuffled)
    assert found.value == pytest.approx(by_loops(ref, tied), abs=1e-12)
    assert found.low <= found.value <= found.high
    assert found.n == len(set(ref) | set(tied))


# --------------------------------------------------------------------------- the whole


def test_subsets_and_score_by_hand() -> None:
    items = [
        item("Math/1", 1, 3),
        item("Math/2", 1, 3),
        item("Safety/1", 1, 3),
        *of({1: [5, 0]}, {1: (2, [4, 3, 0])})[0],
    ]
    rewards: list[list[float]] = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [5, 0], [4, 3, 0]]
    found = judge_rewardbench2(items, rewards, rewards)
    subsets = {name: row["score"].value for name, row in found.tables["subset"].items()}
    assert subsets == {"Math": 0.75, "Safety": 0.0, "Ties": pytest.approx(1 + 0.01 * math.tanh(2))}
    assert found.figures["score"].value == pytest.approx(sum(subsets.values()) / 3)
    assert list(found.credits) == [1, 0.5, 0, 1, 1]
    assert found.figures["accuracy"].n == 9 + 1 + 2
    assert found.notes == [
        "missing subsets: Factuality, Precise IF, Focus: the score is not comparable with published scores"
    ]


def test_the_published_subsets_need_no_note() -> None:
    items = [item(f"{name}/1", 1, 3) for name in SUBSETS if name != "Ties"]
    items += of({1: [5, 0]}, {1: (2, [4, 3, 0])})[0]
    rewards: list[list[float]] = [[1.0, 0, 0, 0]] * 5 + [[5, 0], [4, 3, 0]]
    assert judge_rewardbench2(items, rewards, rewards).notes == []
    strange = judge_rewardbench2([item("Own/1", 1, 3)], [[1.0, 0, 0, 0]], [[1.0, 0, 0, 0]])
    assert strange.notes[-1] == "unknown subsets: Own"


def test_published_columns_are_read(tmp_path: Path) -> None:
    tie = {**ROW, "id": "tied:3", "chosen": ["2", "3"], "num_correct": 2, "subset": "Ties"}
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, [ROW, tie])))
    math_item, ties_item = read_rewardbench2([path]).items
    assert math_item.id == "Math/12"
    assert [answer[0]["content"] for answer in math_item.answers] == ["7", "9", "8", "6"]
    assert math_item.scores == (1, 0, 0, 0)
    assert (ties_item.id, ties_item.scores) == ("Ties/tied:3", (1, 1, 0, 0, 0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_correct": 2}, "`num_correct` is 2, but the row has 1 such answers"),
        ({"num_incorrect": 4}, "`num_incorrect` is 4"),
        ({"rejected": [], "num_incorrect": 0}, "must have at least one answer each"),
        ({"rejected": ["9", 8, "6"]}, r"`rejected\[1\]` must be a string"),
        ({"chosen": "7"}, "`chosen` must be a list, is a string"),
        ({"subset": "Ties"}, "must be ref:<number> or tied:<number>, is '12'"),
        ({"id": None}, "missing column: `id`"),
    ],
    ids=str,
)
def test_a_bad_row_is_refused_with_its_place(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({**ROW, **change}))
    with pytest.raises(BadRecord, match=rf"test\.jsonl:1: .*{says}"):
        read_rewardbench2([path])
