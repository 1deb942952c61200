"""Ranking's batches: flat rows, tables, what is counted, and which tokens are imitated."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from train.tiny_runs import reward_run

from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.rewards.collate import EncodedRecord
from tureen_train.rewards.ranking import RankingMethod

NAN = math.nan


def encoded(*rows: tuple[list[int], int, float]) -> EncodedRecord:
    ids, starts, scores = zip(*rows, strict=True)
    return EncodedRecord(list(ids), list(starts), list(scores))


ITEMS = [
    encoded(([5, 6, 7, 8], 2, 1.0), ([5, 6, 9], 2, 0.0)),
    encoded(([5], 0, 0.5)),
    encoded(([1, 2, 3], 1, 2.0), ([1, 2], 1, 2.0), ([1, 4, 4, 4, 4], 1, NAN)),
]


class Rank:
    """Makes a method of a recipe's loss."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.renderer = Renderer(load_tokenizer(base), tiny.reading(base))

    def __call__(self, **loss: Any) -> RankingMethod:
        return RankingMethod(reward_run(self.base, self.folder, loss=loss), self.renderer)

    def collated(self, **loss: Any) -> dict[str, torch.Tensor]:
        return self(**loss).collate(ITEMS, 4)

    def imitated(self, **loss: Any) -> list[list[int]]:
        rows = self.collated(lm_coefficient=0.1, **loss)["imitated"].int().tolist()
        return [[column for column, wanted in enumerate(row) if wanted] for row in rows]


@pytest.fixture
def rank(base: Path, tmp_path: Path) -> Rank:
    return Rank(base, tmp_path)


def test_answers_become_rows_that_know_their_prompt(rank: Rank) -> None:
    batch = rank.collated()
    assert batch["attention_mask"].sum(1).tolist() == [4, 3, 1, 3, 2, 5]
    assert batch["group"].tolist() == [0, 0, 1, 2, 2, 2]
    assert "imitated" not in batch


def test_pairs_and_imitated_texts_are_counted_before_the_forward_pass(rank: Rank) -> None:
    assert rank().counts(rank.collated()).tolist() == [1, 0]
    method = rank(lm_coefficient=0.1)
    assert method.counts(method.collate(ITEMS, 4)).tolist() == [1, 4]


def test_tables_lay_each_prompts_answers_side_by_side(rank: Rank) -> None:
    batch = rank.collated()
    assert torch.equal(batch["scores"].isnan(), torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]).bool())
    assert batch["lengths"].nan_to_num(-1).tolist() == [[4, 3, -1, -1], [1, -1, -1, -1], [3, 2, 5, -1]]


def test_lengths_say_which_cells_are_answers_also_where_they_are_unlabelled(rank: Rank) -> None:
    batch = rank.collated()
    present = ~batch["lengths"].isnan()
    assert batch["scores"][present].nan_to_num(-1).tolist() == [1, 0, 0.5, 2, 2, -1]


# --------------------------------------------------------------------------- imitation


def test_the_best_answers_own_tokens_are_imitated(rank: Rank) -> None:
    """A prompt's largest score is 1 after DSP's division, so a lone 0.5 counts, as do both texts of a tie."""
    assert rank.imitated() == [[2, 3], [], [0], [1, 2], [1], []]


def test_the_prompt_is_imitated_where_asked_as_dsp_does(rank: Rank) -> None:
    assert rank.imitated(lm_prompt=True) == [[0, 1, 2, 3], [], [0], [0, 1, 2], [0, 1], []]


def test_a_threshold_above_one_imitates_nothing(rank: Rank) -> None:
    assert rank.imitated(lm_threshold=1.0) == [[]] * 6
    assert rank.imitated(lm_threshold=0.0)[1] == []
    assert rank.collated(lm_coefficient=0.1, lm_threshold=1.0)["imitated"].shape == (6, 5)
