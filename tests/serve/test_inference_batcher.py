"""The batcher by its promises: nothing lost, nothing starved, nothing over the limits."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tureen_serve.inference.batcher import BANDS, WINDOW, Batcher, Priority, count_own_tokens, find_prompt_key
from tureen_serve.runtimes.contract import BatchLimits, Row

ROOMY = BatchLimits(batch_tokens=10_000, batch_rows=100)


def row(length: int, mark: int = 0, shared: int = 0, blend: str = "helpful") -> Row:
    """A row of ``length`` tokens whose prompt is all zeros and whose own tokens are ``mark``."""
    return Row((0,) * shared + (mark,) * (length - shared), ((blend, 1.0),), shared)


def drain(batcher: Batcher, limits: BatchLimits) -> list[list[Row]]:
    batches = []
    while len(batcher):
        batches.append(batcher.next_batch(limits))
    return batches


def padded(rows: Sequence[Row]) -> int:
    """Each prompt once, padded to the longest; every row's own tokens, padded to the longest."""
    prompts = {find_prompt_key(each) for each in rows if each.shared}
    return len(prompts) * max(each.shared for each in rows) + len(rows) * max(map(count_own_tokens, rows))


def packed(rows: Sequence[Row]) -> int:
    """Each prompt once and every row's own tokens, without any padding."""
    return sum(each[0].shared + sum(map(count_own_tokens, each)) for each in groups(rows))


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    return [
        [each for each in rows if find_prompt_key(each) == one] for one in dict.fromkeys(map(find_prompt_key, rows))
    ]


rows = st.builds(
    lambda shared, length, mark, blend: Row((mark % 3,) * shared + (mark,) * length, ((blend, 1.0),), shared),
    st.integers(0, 6),
    st.integers(1, 12),
    st.integers(0, 9),
    st.sampled_from(["helpful", "humor"]),
)
arrivals = st.lists(st.tuples(rows, st.sampled_from(BANDS)), max_size=40)
limits = st.builds(BatchLimits, st.integers(1, 80), st.integers(1, 8), st.booleans())


@settings(max_examples=200, deadline=None)
@given(arrivals, limits)
def test_every_row_comes_out_once(entries: list[tuple[Row, Priority]], within: BatchLimits) -> None:
    batcher = Batcher()
    for each, priority in entries:
        batcher.add(each, priority)
    assert len(batcher) == len({each for each, _ in entries})
    assert batcher.tokens() == sum(len(each.ids) for each in {each for each, _ in entries})
    found = [each for batch in drain(batcher, within) for each in batch]
    assert len(found) == len(set(found))
    assert set(found) == {each for each, _ in entries}
    assert batcher.tokens() == 0


@settings(max_examples=200, deadline=None)
@given(arrivals, limits)
def test_no_batch_is_over_the_limits_unless_it_is_one_row(
    entries: list[tuple[Row, Priority]], within: BatchLimits
) -> None:
    batcher = Batcher()
    for each, priority in entries:
        batcher.add(each, priority)
    for batch in drain(batcher, within):
        assert batch
        assert len(batch) <= within.batch_rows
        assert len(batch) == 1 or (padded if within.padded else packed)(batch) <= within.batch_tokens


@settings(max_examples=200, deadline=None)
@given(arrivals, limits)
def test_the_oldest_row_is_always_in_the_next_batch(entries: list[tuple[Row, Priority]], within: BatchLimits) -> None:
    batcher = Batcher()
    waiting: dict[Row, Priority] = {}
    for each, _ in entries:
        if each not in waiting:
            waiting[each] = "default"
            batcher.add(each, "default")
    while len(batcher):
        oldest = next(iter(waiting))
        batch = batcher.next_batch(within)
        assert oldest in batch
        for each in batch:
            del waiting[each]


@settings(max_examples=100, deadline=None)
@given(arrivals, st.data())
def test_dropped_rows_do_not_come_and_do_not_count(entries: list[tuple[Row, Priority]], data: st.DataObject) -> None:
    batcher = Batcher()
    for each, priority in entries:
        batcher.add(each, priority)
    unique = list(dict.fromkeys(each for each, _ in entries))
    gone = set(data.draw(st.lists(st.sampled_from(unique), unique=True))) if unique else set()
    for each in gone:
        batcher.drop(each)
    left = set(unique) - gone
    assert batcher.tokens() == sum(len(each.ids) for each in left)
    assert {each for batch in drain(batcher, ROOMY) for each in batch} == left


def test_an_urgent_row_goes_before_an_older_patient_one() -> None:
    batcher = Batcher()
    for number, band in enumerate(reversed(BANDS)):
        batcher.add(row(5, number), band)
    order = [batch[0].ids[0] for batch in drain(batcher, BatchLimits(batch_tokens=5, batch_rows=1))]
    assert order == [2, 1, 0]


def test_a_row_asked_for_more_urgently_moves_up_and_never_down() -> None:
    batcher = Batcher()
    batcher.add(row(5, 1), "default")
    batcher.add(row(5, 2), "batch")
    batcher.add(row(5, 2), "interactive")
    batcher.add(row(5, 2), "batch")
    assert len(batcher) == 2
    assert batcher.next_batch(BatchLimits(batch_tokens=5, batch_rows=1)) == [row(5, 2)]


def test_without_padding_a_long_row_does_not_weigh_on_short_ones() -> None:
    for pads, expected in ((True, [2, 2]), (False, [4])):
        batcher = Batcher()
        for mark, length in enumerate((12, 2, 2, 2)):
            batcher.add(row(length, mark), "default")
        batches = drain(batcher, BatchLimits(batch_tokens=24, batch_rows=8, padded=pads))
        assert [len(batch) for batch in batches] == expected


def test_less_urgent_rows_fill_what_is_left() -> None:
    batcher = Batcher()
    batcher.add(row(5, 1), "batch")
    batcher.add(row(5, 2), "interactive")
    assert batcher.next_batch(ROOMY) == [row(5, 2), row(5, 1)]


def test_rows_of_a_prompt_go_together_past_an_older_stranger() -> None:
    batcher = Batcher()
    family = [row(8, mark, shared=6) for mark in (1, 2, 3)]
    batcher.add(family[0], "default")
    batcher.add(row(8, 9), "default")
    batcher.add(family[1], "default")
    batcher.add(family[2], "default")
    assert batcher.next_batch(BatchLimits(batch_tokens=12, batch_rows=8)) == family


def test_a_prompt_that_would_be_torn_waits_for_the_next_batch() -> None:
    batcher = Batcher()
    batcher.add(row(6, 9), "default")
    family = [row(6, mark, shared=3) for mark in (1, 2)]
    for each in family:
        batcher.add(each, "default")
    assert drain(batcher, BatchLimits(batch_tokens=100, batch_rows=2)) == [[row(6, 9)], family]


def test_a_prompt_beyond_the_limits_is_split() -> None:
    batcher = Batcher()
    family = [row(6, mark, shared=3) for mark in range(1, 6)]
    for each in family:
        batcher.add(each, "default")
    assert drain(batcher, BatchLimits(batch_tokens=100, batch_rows=2)) == [family[:2], family[2:4], family[4:]]


def test_one_row_longer_than_the_budget_goes_alone() -> None:
    batcher = Batcher()
    batcher.add(row(50, 1), "default")
    batcher.add(row(2, 2), "default")
    assert drain(batcher, BatchLimits(batch_tokens=10, batch_rows=8)) == [[row(50, 1)], [row(2, 2)]]


def test_rows_of_like_length_fill_a_batch_before_older_unlike_ones() -> None:
    batcher = Batcher()
    for length, mark in ((10, 1), (3, 2), (10, 3), (4, 4)):
        batcher.add(row(length, mark), "default")
    batches = drain(batcher, BatchLimits(batch_tokens=20, batch_rows=2))
    assert [[each.ids[0] for each in batch] for batch in batches] == [[1, 3], [2, 4]]


def test_likeness_reaches_only_as_far_as_the_window() -> None:
    batcher = Batcher()
    batcher.add(row(10, 1), "default")
    for mark in range(WINDOW - 1):
        batcher.add(row(3, 100 + mark), "default")
    batcher.add(row(10, 2), "default")
    assert row(10, 2) not in batcher.next_batch(BatchLimits(batch_tokens=20, batch_rows=2))


@pytest.mark.parametrize("other", [row(8, 1, shared=5), row(8, 1, shared=6, blend="humor")])
def test_only_an_equal_prompt_under_an_equal_blend_is_shared(other: Row) -> None:
    batcher = Batcher()
    batcher.add(row(8, 2, shared=6), "default")
    batcher.add(other, "default")
    assert len(drain(batcher, BatchLimits(batch_tokens=14, batch_rows=8))) == 2


def test_tokens_are_counted_from_an_urgency_on() -> None:
    batcher = Batcher()
    for number, band in enumerate(BANDS, 1):
        batcher.add(row(number), band)
    assert [batcher.tokens(band) for band in BANDS] == [1, 3, 6]
    batcher.add(row(3), "interactive")
    assert [batcher.tokens(band) for band in BANDS] == [4, 6, 6]


def test_a_row_that_is_anothers_prompt_does_not_share_with_it() -> None:
    alone, answer = Row((5, 6), (("helpful", 1.0),)), Row((5, 6, 7), (("helpful", 1.0),), 2)
    assert find_prompt_key(alone) != find_prompt_key(answer)


def test_jobs_alone_run_in_smaller_batches() -> None:
    within = BatchLimits(batch_tokens=40, batch_rows=64, padded=False)

    def first(*bands: Priority) -> int:
        batcher = Batcher()
        for number in range(20):
            batcher.add(row(5, mark=number), bands[number % len(bands)])
        return len(batcher.next_batch(within))

    assert first("batch") == 2
    assert first("default") == first("interactive") == first("default", "batch") == 8


def own(tenant: int, number: int, length: int = 10) -> Row:
    """A row of a tenant, with ids of its own."""
    return Row((tenant * 1000 + number,) * length, (("helpful", 1.0),))


def test_tenants_have_equal_shares_of_the_tokens() -> None:
    batcher = Batcher()
    for number in range(60):
        batcher.add(own(1, number, 40), "default", "long")
    for number in range(60):
        batcher.add(own(2, number, 10), "default", "short")
    had = {1: 0, 2: 0}
    while len(batcher) > 60:
        for each in batcher.next_batch(BatchLimits(batch_tokens=100, batch_rows=64, padded=False)):
            had[each.ids[0] // 1000] += len(each.ids)
        assert abs(had[1] - had[2]) <= 50


def test_a_tenant_that_comes_late_gets_no_more_than_its_share() -> None:
    batcher = Batcher()
    for number in range(20):
        batcher.add(own(1, number), "default", "early")
    one = BatchLimits(batch_tokens=10, batch_rows=1)
    for _ in range(10):
        batcher.next_batch(one)
    for number in range(10):
        batcher.add(own(2, number), "default", "late")
    order = [batch[0].ids[0] // 1000 for batch in drain(batcher, one)]
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[18:]) == [1, 2]


def test_idle_time_is_no_credit() -> None:
    batcher = Batcher()
    one = BatchLimits(batch_tokens=10, batch_rows=1)
    batcher.add(own(2, 0), "default", "idle")
    for number in range(20):
        batcher.add(own(1, number), "default", "busy")
    for _ in range(12):
        batcher.next_batch(one)
    for number in range(1, 9):
        batcher.add(own(2, number), "default", "idle")
    order = [batch[0].ids[0] // 1000 for batch in drain(batcher, one)]
    assert sorted(order[:2]) == sorted(order[2:4]) == [1, 2]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(rows, st.sampled_from(BANDS), st.sampled_from("abc")), max_size=40), limits)
def test_rows_of_several_tenants_come_out_once(entries: list[tuple[Row, Priority, str]], within: BatchLimits) -> None:
    batcher = Batcher()
    for each, priority, tenant in entries:
        batcher.add(each, priority, tenant)
    found = [each for batch in drain(batcher, within) for each in batch]
    assert len(found) == len(set(found))
    assert set(found) == {each for each, _, _ in entries}
    assert batcher.tokens() == 0


def test_without_padding_the_oldest_go_first_whatever_their_length() -> None:
    batcher = Batcher()
    rows = [row(length, number) for number, length in enumerate((3, 9, 8, 3, 9, 3))]
    for each in rows:
        batcher.add(each, "default")
    assert drain(batcher, BatchLimits(batch_tokens=100, batch_rows=2, padded=False)) == [rows[:2], rows[2:4], rows[4:]]
