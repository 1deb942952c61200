"""Similarities of answers: the encoder, what records carry, what is kept, and the command that writes them."""

import json
import math
from pathlib import Path

import pytest
import torch
from train import tiny_encoder
from transformers import BertModel

from tureen.records.pairing import split_into_pairs
from tureen.records.schema import BadOption, Record
from tureen_core.base import BaseError
from tureen_train.config import RecipeError
from tureen_train.networks.sentence_encoder import Encoder, add_similarity, open_encoder, parse_pooling, read_cosines


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(bert: Path) -> Encoder:
    return open_encoder(str(bert))


def record(*answers: str, prompt: str = "why") -> Record:
    return Record(
        ({"role": "user", "content": prompt},),
        tuple(({"role": "assistant", "content": answer},) for answer in answers),
        tuple(float(-place) for place in range(len(answers))),
    )


RECORDS = [record("the fox jumps", "leaves fall"), record("fox", "fox", "do leaves fall"), record("number")]


def test_cosines_are_those_of_the_pooled_token_vectors(encoder: Encoder, bert: Path) -> None:
    """One text at a time, straight from the model."""
    model = BertModel.from_pretrained(bert).eval()
    ids = {"why": 7, "the": 4, "fox": 5, "jumps": 6, "leaves": 9, "fall": 10}
    vectors = []
    for text in ("why the fox jumps", "why leaves fall"):
        given = torch.tensor([[2, *(ids[word] for word in text.split()), 3]])
        with torch.no_grad():
            vectors.append(model(given).last_hidden_state[0].mean(0))
    expected = float(torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0))
    cosines = read_cosines(add_similarity(RECORDS, encoder)[0])
    assert cosines.tolist() == [[pytest.approx(1, abs=1e-5), pytest.approx(expected, abs=2e-5)]] + [
        [pytest.approx(expected, abs=2e-5), pytest.approx(1, abs=1e-5)]
    ]


def test_every_two_answers_have_a_cosine(encoder: Encoder) -> None:
    cosines = read_cosines(add_similarity(RECORDS, encoder)[1])
    assert cosines.shape == (3, 3)
    assert cosines[0, 1] == pytest.approx(1, abs=1e-5)
    assert cosines[0, 2] < 0.99


def test_a_long_text_loses_its_beginning(encoder: Encoder) -> None:
    """The encoder reads twelve tokens, ten of them words."""
    tail = "the fox jumps why do leaves fall number the fox"
    one, other = encoder.embed([f"leaves leaves leaves {tail}", f"number {tail}"])
    assert torch.allclose(one, other, atol=1e-6)


def test_pooling_is_the_folders_own_or_the_one_named(bert: Path, tmp_path: Path) -> None:
    assert open_encoder(str(bert)).pooling == "mean"
    named = open_encoder(str(bert), "cls")
    assert named.pooling == "cls"
    assert named.name != open_encoder(str(bert)).name
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in bert.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert open_encoder(str(folder)).pooling == "cls"
    first = BertModel.from_pretrained(bert).eval()(torch.tensor([[2, 5, 3]])).last_hidden_state[0, 0].detach()
    assert torch.allclose(named.embed(["fox"])[0], first / first.norm(), atol=1e-5)


def test_an_encoder_that_is_not_there_is_named() -> None:
    with pytest.raises(BaseError, match="'nowhere' is neither 'minilm' nor a folder with a config.json"):
        open_encoder("nowhere")


def test_a_pooling_that_does_not_exist_is_refused() -> None:
    assert parse_pooling(None) is None
    assert parse_pooling("cls") == "cls"
    with pytest.raises(BadOption, match="--pooling: 'max' is not one of mean, cls"):
        parse_pooling("max")


# --------------------------------------------------------------------------- what is kept


def test_what_a_record_carries_is_not_computed_again(encoder: Encoder) -> None:
    meta = {"similarity": {"cosine": [[1, 0.25], [0.25, 1]], "encoder": encoder.name}}
    carried = Record(RECORDS[0].prompt, RECORDS[0].answers, RECORDS[0].scores, meta=meta)
    assert add_similarity([carried], encoder) == [carried]
    assert read_cosines(carried)[0, 1] == 0.25


def test_what_another_encoder_said_is_computed_again(encoder: Encoder) -> None:
    meta = {"similarity": {"cosine": [[1, 0.25], [0.25, 1]], "encoder": "another"}, "id": 7}
    carried = Record(RECORDS[0].prompt, RECORDS[0].answers, RECORDS[0].scores, meta=meta)
    (found,) = add_similarity([carried], encoder)
    assert found.meta["similarity"]["encoder"] == encoder.name
    assert read_cosines(found)[0, 1] != 0.25
    assert found.meta["id"] == 7


def test_cosines_of_other_answers_are_refused(encoder: Encoder) -> None:
    meta = {"similarity": {"cosine": [[1, 0.25], [0.25, 1]], "encoder": encoder.name}}
    torn = Record(RECORDS[1].prompt, RECORDS[1].answers, RECORDS[1].scores, "pairs.json:3", meta)
    with pytest.raises(RecipeError, match=r"pairs.json:3: meta.similarity.cosine is 2×2, but there are 3 answers"):
        read_cosines(torn)


def test_vectors_of_the_same_texts_are_kept(encoder: Encoder, tmp_path: Path) -> None:
    found = add_similarity(RECORDS, encoder, tmp_path)
    (kept,) = (tmp_path / "similarity").iterdir()
    gone = Encoder(Path("gone"), encoder.pooling, encoder.name)  # only what is kept can answer
    assert add_similarity(RECORDS, gone, tmp_path) == found
    add_similarity(RECORDS[:1], encoder, tmp_path)
    assert len(list(kept.parent.iterdir())) == 2


def test_pairs_of_a_prompt_keep_their_own_cosines(encoder: Encoder) -> None:
    (wide,) = add_similarity(RECORDS[1:2], encoder)
    table = read_cosines(wide)
    pairs = list(split_into_pairs([wide]))
    assert [read_cosines(pair)[0, 1] for pair in pairs] == [table[i, j] for i, j in wide.pairs]
    assert all(read_cosines(pair).shape == (2, 2) for pair in pairs)


# --------------------------------------------------------------------------- the real one


@pytest.mark.real
def test_minilm_tells_near_sentences_from_far_ones() -> None:
    near = record(
        "The cat sits on the mat.", "A cat is sitting on a rug.", "Shares fell sharply on Monday.", prompt="?"
    )
    cosines = read_cosines(add_similarity([near], open_encoder())[0])
    assert cosines[0, 1] > 0.5
    assert abs(cosines[0, 2]) < 0.3
    assert math.isclose(cosines[0, 0], 1, abs_tol=1e-5)
