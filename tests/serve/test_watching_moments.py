"""Streaming moments against numpy in float64."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tureen_serve.watching.moments import BLOCK, BLOCKS, Moments, RecentMoments

Array = NDArray[np.float64]


def draw_pairs(count: int, offset: float = 0.0) -> tuple[Array, Array]:
    draw = np.random.default_rng(count)
    x = draw.normal(size=count)
    return x + offset, 0.4 * x + draw.normal(size=count) + offset


def taken(x: Array, y: Array) -> Moments:
    moments = Moments()
    for pair in zip(x.tolist(), y.tolist(), strict=True):
        moments.add_pair(*pair)
    return moments


@pytest.mark.parametrize("offset", [0, 1e6, -1e8])
@pytest.mark.parametrize("count", [2, 3, 1000])
def test_moments_are_those_of_numpy(count: int, offset: float) -> None:
    x, y = draw_pairs(count, offset)
    moments = taken(x, y)
    assert moments.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    assert moments.mean_x == pytest.approx(x.mean(), rel=1e-12)
    assert moments.deviation_y == pytest.approx(y.std(), rel=1e-6)


def test_joined_parts_are_the_whole() -> None:
    x, y = draw_pairs(1000, 1e6)
    joined = Moments()
    for start, end in [(0, 0), (0, 1), (1, 700), (700, 1000)]:
        joined.join(taken(x[start:end], y[start:end]))
    assert joined.count == 1000
    assert joined.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-8)
    assert joined.mean_y == pytest.approx(y.mean(), rel=1e-14)


def test_pooled_groups_are_centred_on_their_own_means() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(50, 4)) + 100 * draw.normal(size=(50, 1))
    y = draw.normal(size=(50, 4)) - x + x.mean(axis=1, keepdims=True)
    pooled = Moments()
    for group in zip(x, y, strict=True):
        pooled.pool(taken(*group))
    apart = [(each - each.mean(axis=1, keepdims=True)).ravel() for each in (x, y)]
    assert pooled.correlation == pytest.approx(np.corrcoef(*apart)[0, 1], abs=1e-12)


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)], [(1e9, 0.1)] * 5, [(1.0, 3.0), (2.0, 3.0)]])
def test_constant_numbers_have_no_correlation(pairs: list[tuple[float, float]]) -> None:
    moments = Moments()
    for pair in pairs:
        moments.add_pair(*pair)
    assert moments.correlation is None


def test_only_the_last_blocks_count() -> None:
    x, y = draw_pairs(3 * BLOCK * BLOCKS + 5)
    recent = RecentMoments()
    for pair in zip(x.tolist(), y.tolist(), strict=True):
        recent.find_block().add_pair(*pair)
    kept = (BLOCKS - 1) * BLOCK + 5
    whole = recent.join_blocks()
    assert whole.count == kept
    assert whole.correlation == pytest.approx(np.corrcoef(x[-kept:], y[-kept:])[0, 1], abs=1e-12)
    assert whole.mean_y == pytest.approx(y[-kept:].mean(), rel=1e-12)
