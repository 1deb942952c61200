"""Rank correlation of rewards with ratings: values by hand, what is left out, and intervals."""

import math
from pathlib import Path

import numpy as np
import pytest

from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading
from tureen.records.schema import BadOption, Record
from tureen_train.measures.correlation import (
    collect_ratings,
    compare_correlations,
    compute_correlations,
    compute_kendall,
    compute_spearman,
)

NAN = math.nan
SCORED = Path(__file__).parent / "data" / "deepspeed_chat_scored.parquet"


def record(attributes: dict[str, tuple[float, ...]], *scores: float) -> Record:
    answers = tuple(({"role": "assistant", "content": f"answer {n}"},) for n in range(len(scores)))
    return Record(({"role": "user", "content": "?"},), answers, scores, attributes=attributes)


def test_measures_are_the_textbooks() -> None:
    """Ranks 1 2 3 4 against 1 3 2 4: ρ = 1 − 6·2 / (4·15), τ = (5 − 1) / 6."""
    x, y = (np.array(each, dtype=np.float64) for each in ([1, 2, 3, 4], [10, 30, 20, 99]))
    assert compute_spearman(x, y) == pytest.approx(0.8)
    assert compute_kendall(x, y) == pytest.approx(2 / 3)
    assert compute_spearman(x, -y) == pytest.approx(-0.8)
    assert compute_kendall(x, np.array([1, 1, 2, 2], dtype=np.float64)) == pytest.approx(
        4 / math.sqrt(6 * 4)
    )  # τ-b: 4 pairs of 6 untied


def test_what_never_varies_correlates_with_nothing() -> None:
    constant, varying = np.ones(3, dtype=np.float64), np.arange(3, dtype=np.float64)
    assert math.isnan(compute_spearman(constant, varying))
    assert math.isnan(compute_kendall(varying, constant))
    assert math.isnan(compute_spearman(varying[:1], varying[:1]))


def test_answers_are_ranked_together_and_pairs_by_their_gap() -> None:
    """Three prompts: rewards rise with ratings inside each, and the larger difference gets the smaller gap."""
    rewards = [[0.0, 5.0], [0.0, 3.0], [0.0, 1.0]]
    ratings = [[0.4, 0.5], [0.3, 0.6], [0.1, 0.9]]
    found = compute_correlations(rewards, ratings)
    assert found["gap_spearman"].value == pytest.approx(-1)
    assert found["gap_kendall"].value == pytest.approx(-1)
    assert found["gap_spearman"].n == 3
    assert found["spearman"].n == 6
    assert 0 < found["spearman"].value < 1


def test_which_answer_is_better_is_the_ratings_word_and_ties_make_no_pair() -> None:
    rewards = [[2.0, 0.0, 1.0], [0.0, 3.0], [1.0, 1.0]]
    ratings = [[0.1, 0.9, 0.9], [0.2, 0.2], [0.3, NAN]]
    found = compute_correlations(rewards, ratings)
    assert found["gap_spearman"].n == 2  # gaps of −2 and −1 for one difference in rating: nothing to rank by
    assert math.isnan(found["gap_spearman"].value)
    assert found["spearman"].n == 6


def test_intervals_hold_the_value_and_narrow_with_prompts() -> None:
    rng = np.random.default_rng(5)
    widths = []
    for count in (20, 160):
        ratings = rng.normal(size=(count, 2))
        rewards = ratings + rng.normal(size=(count, 2))
        found = compute_correlations(rewards.tolist(), ratings.tolist())["spearman"]
        assert found.low < found.value < found.high
        assert found.low < 0.69 < found.high  # of two normals with correlation √½
        widths.append(found.high - found.low)
    assert widths[0] > 1.8 * widths[1]
    again = compute_correlations(rewards.tolist(), ratings.tolist())["spearman"]
    assert again == found


def test_a_difference_is_drawn_on_the_same_prompts() -> None:
    rng = np.random.default_rng(6)
    ratings = rng.normal(size=(60, 2))
    noisy = ratings + rng.normal(size=(60, 2))
    near = noisy + 0.01 * rng.normal(size=(60, 2))
    found = compare_correlations(noisy.tolist(), near.tolist(), ratings.tolist())["spearman"]
    alone = compute_correlations(noisy.tolist(), ratings.tolist())["spearman"]
    assert found.low <= found.value <= found.high
    assert found.high - found.low < (alone.high - alone.low) / 5
    same = compare_correlations(noisy.tolist(), noisy.tolist(), ratings.tolist())["kendall"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


# --------------------------------------------------------------------------- ratings


def test_ratings_are_an_attribute_or_the_scores() -> None:
    records = [record({"gpt_score": (0.9, 0.2)}, 1, 0), record({}, 1, 0, NAN)]
    assert collect_ratings(records, "gpt_score") == [[0.9, 0.2], [pytest.approx(NAN, nan_ok=True)] * 3]
    assert collect_ratings(records[:1], "scores") == [[1, 0]]


def test_a_rating_that_no_record_has_is_named() -> None:
    with pytest.raises(BadOption, match="--rating: no record has the rating 'human'; use one of scores, gpt_score"):
        collect_ratings([record({"gpt_score": (0.9, 0.2)}, 1, 0)], "human")


def test_the_scored_example_files_ratings_are_read_as_an_attribute() -> None:
    records = list(Reading(SCORED))
    rated = collect_ratings(records, "gpt_score")
    assert all(len(row) == 2 for row in rated)
    assert rated == [[each.meta["chosen_gpt_score"], each.meta["rejected_gpt_score"]] for each in records]
    assert [each.attributes for each in split_into_pairs(records)] == [each.attributes for each in records]
