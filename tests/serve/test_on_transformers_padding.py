"""Padding, positions, and groups of like length."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tureen_serve.runtimes.on_transformers.padding import SLACK, compute_positions, group_by_length, pad_sequences

CPU = torch.device("cpu")


def test_right_padding() -> None:
    ids, mask = pad_sequences([(5, 6, 7), (8,)], "right", CPU)
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert (ids * mask).tolist() == [[5, 6, 7], [8, 0, 0]]
    assert compute_positions(mask)[1, 0] == 0


def test_left_padding() -> None:
    ids, mask = pad_sequences([(5, 6, 7), (8,)], "left", CPU)
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert (ids * mask).tolist() == [[5, 6, 7], [0, 0, 8]]
    assert compute_positions(mask).tolist() == [[0, 1, 2], [0, 0, 0]]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_every_token_keeps_its_place(texts: list[list[int]]) -> None:
    for side in ("left", "right"):
        ids, mask = pad_sequences(texts, side, CPU)
        places = compute_positions(mask)
        for row, text in enumerate(texts):
            assert ids[row][mask[row] == 1].tolist() == text
            assert places[row][mask[row] == 1].tolist() == list(range(len(text)))


@given(st.dictionaries(st.integers(0, 99), st.integers(1, 2000), max_size=30))
def test_groups_hold_every_key_once_and_pad_little(lengths: dict[int, int]) -> None:
    groups = group_by_length(lengths)
    assert sorted(key for group in groups for key in group) == sorted(lengths)
    for group in groups:
        shortest, longest = min(lengths[key] for key in group), max(lengths[key] for key in group)
        assert longest - shortest <= max(SLACK, shortest // 4)


def test_short_rows_are_not_torn_apart() -> None:
    assert group_by_length({0: 9, 1: 1, 2: 3}) == [[1, 2, 0]]
    assert group_by_length({0: 400, 1: 100, 2: 120}) == [[1, 2], [0]]
