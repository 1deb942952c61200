"""Quantiles by nearest rank, and HdrHistogram's correction with the numbers of its author."""

import pytest

from tureen.bench.latencies import correct_for_omission, find_quantile, summarise_latencies


def test_quantiles_are_exact_by_nearest_rank() -> None:
    assert summarise_latencies(range(1, 1001)) == {"p50": 500, "p90": 900, "p99": 990, "p99_9": 999, "max": 1000}
    assert summarise_latencies([3.0]) == dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), 3.0)
    assert set(summarise_latencies([]).values()) == {None}
    assert find_quantile([1.0, 2.0], 0.0) == 1.0


def test_a_stall_of_100_seconds_in_200_is_half_of_the_requests() -> None:
    """Gil Tene's example: 100 s at 1 ms a request, then one request that takes 100 s."""
    measured = [0.001] * 100_000 + [100.0]
    assert summarise_latencies(measured)["p99_9"] == 0.001
    found = summarise_latencies(correct_for_omission(measured, 0.001))
    assert found["p50"] == pytest.approx(0.001, abs=0.002)
    assert found["p90"] == pytest.approx(80.0, rel=0.01)
    assert found["p99_9"] == pytest.approx(99.8, rel=0.01)


def test_what_is_added_goes_down_to_the_interval() -> None:
    assert correct_for_omission([1.0, 4.0, 0.5], 1.0) == [1.0, 4.0, 0.5, 3.0, 2.0, 1.0]
    assert correct_for_omission([2.5], 1.0) == [2.5, 1.5]
    assert correct_for_omission([1.0, 0.2], 1.0) == [1.0, 0.2]
