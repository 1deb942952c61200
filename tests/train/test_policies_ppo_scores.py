"""Running statistics and scaling of scores against numpy in float64 and TRL's own order of steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen_train.policies.ppo.scores import RunningMoments, ScoreScale

batches = st.lists(st.lists(st.floats(-100, 100), max_size=6), min_size=1, max_size=5)


@settings(deadline=None, max_examples=100)
@given(batches)
def test_moments_are_those_of_all_numbers(given_batches: list[list[float]]) -> None:
    moments = RunningMoments()
    for batch in given_batches:
        moments.add_batch(batch)
    every = np.array([each for batch in given_batches for each in batch], dtype=np.float64)
    assert moments.count == len(every)
    if len(every):
        assert moments.mean == pytest.approx(every.mean(), rel=1e-9, abs=1e-9)
    if len(every) > 1 and every.std() > 1e-6:
        assert moments.deviation == pytest.approx(every.std(ddof=1), rel=1e-9)


def test_scaling_by_hand() -> None:
    """1 and 3 have the mean 2 and the deviation √2; with 5 and 7 they have the mean 4 and the variance 20/3."""
    scale = ScoreScale(scale=True, centre=True)
    assert scale.scale_scores([1.0, 3.0]) == pytest.approx([-1 / 2**0.5, 1 / 2**0.5])
    assert scale.scale_scores([5.0, 7.0]) == pytest.approx([1 / (20 / 3) ** 0.5, 3 / (20 / 3) ** 0.5])


def test_scaling_alone_keeps_the_sign() -> None:
    assert ScoreScale(scale=True).scale_scores([1.0, 3.0]) == pytest.approx([1 / 2**0.5, 3 / 2**0.5])


def test_centring_alone_keeps_the_size() -> None:
    assert ScoreScale(centre=True).scale_scores([1.0, 3.0, 8.0]) == [-3.0, -1.0, 4.0]


def test_clipping_comes_last_and_by_default_nothing_is_changed() -> None:
    assert ScoreScale(clip=5.0).scale_scores([-7.0, 0.5, 12.0]) == [-5.0, 0.5, 5.0]
    assert ScoreScale(centre=True, clip=1.5).scale_scores([10.0, 12.0]) == [-1.0, 1.0]
    assert ScoreScale().scale_scores([-7.0, 0.5, 12.0]) == [-7.0, 0.5, 12.0]


@pytest.mark.parametrize("scores", [[4.0], [4.0, 4.0, 4.0]])
def test_scores_without_a_deviation_are_not_divided(scores: list[float]) -> None:
    assert ScoreScale(scale=True).scale_scores(scores) == scores
    assert ScoreScale(scale=True, centre=True).scale_scores(scores) == [0.0] * len(scores)


def test_a_checkpoint_keeps_the_moments() -> None:
    scale = ScoreScale(scale=True, centre=True)
    scale.scale_scores([1.0, 2.5, -3.0])
    again = ScoreScale(scale=True, centre=True)
    again.load_state_dict(scale.state_dict())
    assert again.scale_scores([0.5, 9.0]) == scale.scale_scores([0.5, 9.0])
