"""The layout of a packed batch: every token once, every text whole, every answer behind its prompt."""

import pytest
import torch
from core.packed_rows import Row, find_shared, pack_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from serve.experts import texts

from tureen_core.packed.layout import find_edges, find_ends, pack_texts

KIND, WIT = (("kind", 1.0),), (("wit", 1.0),)


def group() -> list[Row]:
    """Two answers to one prompt around a text that stands alone."""
    return [Row((1, 2, 3, 4), KIND, 2), Row((9, 8, 7), WIT), Row((1, 2, 5), KIND, 2)]


def test_a_group_is_its_prompt_once_and_its_answers() -> None:
    found = pack_rows(group())
    assert found.ids.tolist() == [1, 2, 3, 4, 9, 8, 7, 5]
    assert found.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 2]
    assert found.lengths.tolist() == [2, 2, 3, 1]
    assert found.reaches.tolist() == [2, 4, 3, 3]
    assert found.keys.tolist() == [0, 1] + [0, 1, 2, 3] + [4, 5, 6] + [0, 1, 7]
    assert found.blends == (KIND, KIND, WIT, KIND)
    assert found.segments.tolist() == [1, 2, 3]


def test_a_known_prompt_stands_behind_the_sequence() -> None:
    rows = [*group(), Row((6, 6, 5), WIT, 2), Row((6, 6, 4), WIT, 2)]
    known = {((1, 2), KIND)}
    found = pack_texts(rows, find_shared(rows, known), known)
    assert found.known == (((1, 2), KIND),)
    assert found.ids.tolist() == [3, 4, 9, 8, 7, 5, 6, 6, 5, 4]
    assert found.positions.tolist() == [2, 3, 0, 1, 2, 2, 0, 1, 2, 2]
    assert found.keys.tolist() == [10, 11, 0, 1] + [2, 3, 4] + [10, 11, 5] + [6, 7] + [6, 7, 8] + [6, 7, 9]
    assert found.lengths.tolist() == [2, 3, 1, 2, 1, 1]
    assert found.reaches.tolist() == [4, 3, 3, 2, 3, 3]


def test_rows_that_share_nothing_stand_end_to_end() -> None:
    found = pack_rows([Row((1, 2, 3), KIND, 2), Row((4, 5), WIT), Row((6,), KIND)])
    assert found.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.keys.tolist() == list(range(6))
    assert found.lengths.tolist() == found.reaches.tolist() == [3, 2, 1]


def test_a_prompt_under_another_blend_is_another() -> None:
    rows = [Row((1, 2, last), blend, 2) for blend in (KIND, WIT) for last in (3, 4)]
    found = pack_rows(rows)
    assert found.ids.tolist() == [1, 2, 3, 4, 1, 2, 3, 4]
    assert found.blends == (KIND,) * 3 + (WIT,) * 3


def test_rows_told_not_to_share_stand_whole() -> None:
    assert pack_texts(group(), {}).ids.tolist() == [1, 2, 3, 4, 9, 8, 7, 1, 2, 5]


def test_equal_rows_are_one_row_each() -> None:
    found = pack_rows([Row((1, 2, 3), KIND, 2), Row((1, 2, 3), KIND, 2)])
    assert found.ids.tolist() == [1, 2, 3, 3]
    assert found.segments.tolist() == [1, 2]


def test_texts_are_padded_on_the_right() -> None:
    index, mask = pack_rows(group()).find_texts([2, 0])
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert index[mask.bool()].tolist() == [0, 1, 7, 0, 1, 2, 3]


def test_the_ends_are_the_last_two_tokens_of_each_segment() -> None:
    prompt, first, second, single = texts([3, 4, 2, 1])
    rows = [Row(prompt + first, KIND, 3), Row(prompt + second, KIND, 3), Row(single, KIND)]
    packing = pack_rows(rows)
    assert packing.lengths.tolist() == [3, 4, 2, 1]
    ends = find_ends(packing, 5)
    assert ends.places.tolist() == [1, 2, 5, 6, 7, 8, 9]
    assert ends.queries_at.tolist() == [0, 2, 4, 6, 7]
    assert ends.layer == 5


@pytest.mark.parametrize(("lengths", "expected"), [([2, 3], [0, 2, 5]), ([0, 4, 0], [0, 0, 4, 4]), ([7], [0, 7])])
def test_edges_are_where_each_begins_and_the_last_ends(lengths: list[int], expected: list[int]) -> None:
    assert find_edges(torch.tensor(lengths)).tolist() == expected


@st.composite
def batches(draw: st.DrawFn) -> list[Row]:
    ids = st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple)
    prompts = draw(st.lists(ids, min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        prompt, answer = draw(st.sampled_from([*prompts, ()])), draw(ids)
        rows.append(Row(prompt + answer, draw(st.sampled_from([KIND, WIT])), len(prompt)))
    return rows


@settings(max_examples=200, deadline=None)
@given(rows=batches())
def test_every_text_is_found_whole_and_no_token_twice(rows: list[Row]) -> None:
    prompts, found = find_shared(rows), pack_rows(rows)
    index, mask = found.find_texts(range(len(rows)))
    for row, places, present in zip(rows, index, mask.bool(), strict=True):
        assert tuple(found.ids[places[present]].tolist()) == row.ids
        assert found.positions[places[present]].tolist() == list(range(len(row.ids)))
    alone = sum(len(row.ids) for at, row in enumerate(rows) if at not in prompts)
    answers = sum(len(rows[at].ids) - rows[at].shared for at in prompts)
    assert len(found.ids) == alone + answers + sum(len(ids) for ids, _ in set(prompts.values()))
    assert (len(found.keys) == len(found.ids)) == (not prompts)


@settings(max_examples=200, deadline=None)
@given(rows=batches())
def test_a_segments_keys_end_with_its_own_tokens_under_its_own_blend(rows: list[Row]) -> None:
    """What aligns a causal mask to the bottom right, and what keeps the adapters apart."""
    found = pack_rows(rows)
    starts, ends = find_edges(found.lengths), find_edges(found.reaches)
    of_token = [
        blend for blend, length in zip(found.blends, found.lengths.tolist(), strict=True) for _ in range(length)
    ]
    for segment, (length, blend) in enumerate(zip(found.lengths.tolist(), found.blends, strict=True)):
        keys = found.keys[ends[segment] : ends[segment + 1]].tolist()
        assert keys[len(keys) - length :] == list(range(int(starts[segment]), int(starts[segment]) + length))
        assert {of_token[key] for key in keys} == {blend}
    assert [found.blends[segment] for segment in found.segments.tolist()] == [row.blend for row in rows]
