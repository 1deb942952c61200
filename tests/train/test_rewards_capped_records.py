"""Caps made once before training: of every two answers, by each prior, and laid out in a batch's table."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pydantic import TypeAdapter
from train import tiny_encoder

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.config.ranking import Constraint
from tureen_train.networks.sentence_encoder import open_encoder
from tureen_train.rewards.capped_records import compare_lengths, encode_capped, pad_caps

_SETTINGS: TypeAdapter[Constraint] = TypeAdapter(Constraint)


@pytest.fixture(scope="module")
def renderer(base: Path) -> Renderer:
    return Renderer(load_tokenizer(base), tiny.reading(base))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.bert(tmp_path_factory.mktemp("bert"))


def record(*answers: str, **meta: Any) -> Record:
    texts = tuple(({"role": "assistant", "content": answer},) for answer in answers)
    return Record(({"role": "user", "content": "why"},), texts, tuple(map(float, range(len(answers)))), "a:1", meta)


def caps(renderer: Renderer, cache: Path, given: Record, **settings: Any) -> np.ndarray[Any, Any]:
    (item,) = encode_capped([given], renderer, _SETTINGS.validate_python(settings), cache).items
    return np.asarray(item.caps)  # type: ignore[attr-defined]


def test_lengths_are_compared_both_ways() -> None:
    table = compare_lengths([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 4]])
    assert table.tolist() == [[1, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 1]]


def test_a_fixed_cap_is_everybodys(renderer: Renderer, tmp_path: Path) -> None:
    assert caps(renderer, tmp_path, record("fox", "leaves", "do"), prior="fixed", value=2).tolist() == [[2] * 3] * 3


def test_a_much_longer_answer_may_stand_further_apart(renderer: Renderer, tmp_path: Path) -> None:
    found = caps(renderer, tmp_path, record("fox", "dog", "fox " * 9), prior="length_ratio", beta1=2, beta2=0)
    assert found.diagonal().tolist() == [2] * 3
    assert found[0, 2] > 4 > found[0, 1]


def test_a_record_that_carries_no_cosines_gets_them_and_they_are_kept(
    renderer: Renderer, bert: Path, tmp_path: Path
) -> None:
    settings = {"prior": "cosine", "beta1": 2, "encoder": str(bert)}
    found = caps(renderer, tmp_path, record("fox", "fox", "leaves fall"), **settings)
    assert found[0, 1] == pytest.approx(2 / 1.001, rel=2e-3)  # arccos is steep at 1
    assert found[0, 2] > found[0, 1]
    assert len(list((tmp_path / "similarity").iterdir())) == 1


def test_cosines_that_do_not_fit_the_answers_are_refused(renderer: Renderer, bert: Path, tmp_path: Path) -> None:
    torn = record("fox", "dog", "do", similarity={"cosine": [[1, 0], [0, 1]], "encoder": open_encoder(str(bert)).name})
    with pytest.raises(RecipeError, match="a:1: meta.similarity.cosine is 2×2, but there are 3 answers"):
        caps(renderer, tmp_path, torn, prior="cosine", beta1=2, encoder=str(bert))


def test_a_batchs_table_is_as_wide_as_it_is_told(renderer: Renderer, tmp_path: Path) -> None:
    settings = _SETTINGS.validate_python({"prior": "fixed", "value": 2})
    items = encode_capped([record("fox", "dog"), record("fox", "dog", "do")], renderer, settings, tmp_path).items
    table = pad_caps(items, 4)
    assert table.dtype == torch.float32
    assert table.shape == (2, 4, 4)
    assert (table == 2).flatten(1).sum(1).tolist() == [4, 9]
    assert table[0, :2, :2].tolist() == [[2, 2], [2, 2]]
