"""Scores that are kept: found by artifacts and ids, the oldest let go."""

from tureen_serve.inference.score_cache import ScoreCache
from tureen_serve.runtimes.contract import Rewards, Row

HELPFUL, HARMLESS = (("helpful", 1.0),), (("harmless", 1.0),)


def test_a_score_is_found_by_its_ids_and_its_artifacts() -> None:
    cache = ScoreCache(8)
    cache.put(Row((1, 2), HELPFUL), Rewards((0.5, -1.0), cached=1))
    assert cache.get(Row((1, 2), HELPFUL)) == Rewards((0.5, -1.0), cached=2)
    assert cache.get(Row((1, 2), HELPFUL, shared=1)) == Rewards((0.5, -1.0), cached=2)
    for other in (
        Row((1, 2, 3), HELPFUL),
        Row((2, 1), HELPFUL),
        Row((1, 2), HARMLESS),
        Row((1, 2), (("helpful", 0.5),)),
    ):
        assert cache.get(other) is None
    assert cache.hits == 2


def test_what_was_longest_not_asked_for_goes_first() -> None:
    cache = ScoreCache(2)
    rows = [Row((each,), HELPFUL) for each in range(3)]
    cache.put(rows[0], Rewards((0.0,)))
    cache.put(rows[1], Rewards((1.0,)))
    assert cache.get(rows[0])
    cache.put(rows[2], Rewards((2.0,)))
    assert [bool(cache.get(row)) for row in rows] == [True, False, True]
    assert len(cache) == 2


def test_a_cache_of_no_size_keeps_nothing() -> None:
    cache = ScoreCache(0)
    cache.put(Row((1,), HELPFUL), Rewards((0.0,)))
    assert len(cache) == 0
    assert cache.get(Row((1,), HELPFUL)) is None
