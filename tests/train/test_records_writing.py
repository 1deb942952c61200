"""What is written reads back the same, and a failure leaves nothing behind."""

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from trl import is_conversational

from tureen.records.dialogue import STYLES, assistant_turn, user_turn
from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading
from tureen.records.schema import UNLABELLED, BadOption, BadRecord, Record
from tureen_train.records.writing import write_pairs, write_pairs_with_ties, write_steps, write_text_score

DATA = Path(__file__).parent / "data"

texts = st.text(st.characters(codec="utf-8"), max_size=20)
answer_texts = texts.filter(lambda text: bool(text.strip()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts, lambda inner: st.lists(inner, max_size=3)
)
finite = st.floats(0, 1e9) | st.sampled_from([0.0, 1.0, UNLABELLED])


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A record as readers make them: a prompt that ends with the user, and one-turn answers."""
    turns = draw(st.lists(st.tuples(texts, texts), max_size=2))
    prompt = [turn for asked, said in turns for turn in (user_turn(asked), assistant_turn(said))]
    answers = draw(st.lists(answer_texts, min_size=1, max_size=4))
    scores = draw(st.lists(finite, min_size=len(answers), max_size=len(answers)))
    meta = draw(st.dictionaries(texts, json_values, max_size=2))
    return Record(
        (*prompt, user_turn(draw(texts))),
        tuple((assistant_turn(text),) for text in answers),
        tuple(scores),
        meta=meta,
    )


def read_back(path: Path) -> list[Record]:
    return list(Reading(path, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
@pytest.mark.parametrize("style", STYLES)
@settings(deadline=None, max_examples=50)
@given(written=st.lists(records(), min_size=1, max_size=4))
def test_text_and_score_read_back_the_same(folder: Path, style: str, name: str, written: list[Record]) -> None:
    try:
        count = write_text_score(written, folder / name, style)
    except BadRecord:
        assume(False)
    assert count == len(written)
    assert read_back(folder / name) == written


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
@settings(deadline=None, max_examples=50)
@given(written=st.lists(records(), min_size=1, max_size=4))
def test_pairs_read_back_the_same(folder: Path, name: str, written: list[Record]) -> None:
    pairs = list(split_into_pairs(written))
    assume(pairs)
    assert write_pairs(written, folder / name) == len(pairs)
    assert read_back(folder / name) == pairs


@pytest.mark.parametrize(
    "name",
    [
        "hh.jsonl",
        "deepspeed_chat.parquet",
        "deepspeed_chat_scored.parquet",
        "alpaca_annotations.json",
        "alpaca_samples.cc-by-nc.json",
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_real_items_read_back_the_same(tmp_path: Path, name: str, style: str) -> None:
    real = list(Reading(DATA / name))
    assert write_text_score(real, tmp_path / "out.jsonl", style) == len(real)
    assert read_back(tmp_path / "out.jsonl") == real


def test_a_domain_as_dsp_writes_it(tmp_path: Path) -> None:
    write_text_score(Reading(DATA / "dsp_domains.cc-by-nc.json", domain="business"), tmp_path / "out.json")
    first = json.loads((tmp_path / "out.json").read_text())[0]
    asked = "## Human:\nReplace the following word with the opposite adjective: cold\n\n## Assistant:\n"
    assert first["text"][:2] == [f"{asked}Hot.", f"{asked}hot"]
    assert first["score"] == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_pairs_are_conversations_to_trl(tmp_path: Path) -> None:
    write_pairs(Reading(DATA / "dsp_domains.cc-by-nc.json", domain="academy"), tmp_path / "out.jsonl")
    loaded = load_dataset(
        "json", data_files=str(tmp_path / "out.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 8
    assert is_conversational(loaded[0])
    assert loaded[0]["prompt"] == [user_turn("Replace the following word with the opposite adjective: cold")]
    assert (loaded[0]["chosen"], loaded[0]["rejected"]) == ([assistant_turn("Hot.")], [assistant_turn("hot")])


def test_an_unlabelled_score_is_null_and_meta_is_kept_apart(tmp_path: Path) -> None:
    day = datetime.date(2024, 5, 1)
    one = Record(
        (user_turn("q"),),
        ((assistant_turn("a"),), (assistant_turn("b"),)),
        (1.0, math.nan),
        meta={"text": 3, "day": day},
    )
    write_text_score([one], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {
        "text": ["## Human:\nq\n\n## Assistant:\na", "## Human:\nq\n\n## Assistant:\nb"],
        "score": [1.0, None],
        "meta": {"text": 3, "day": "2024-05-01"},
    }


def test_text_is_written_as_it_is_with_unix_line_ends(tmp_path: Path) -> None:
    ones = [Record((user_turn("grün"),), ((assistant_turn("日\u2028本"),), (assistant_turn("b"),)), (1.0, 0.0))] * 2
    write_pairs(ones, tmp_path / "out.jsonl")
    raw = (tmp_path / "out.jsonl").read_bytes()
    assert "grün".encode() in raw
    assert raw.count(b"\n") == 2
    assert b"\r" not in raw


@pytest.mark.parametrize(
    ("prompt", "score", "words"),
    [
        ([{"role": "system", "content": "s"}, user_turn("q")], 1.0, r"file:3: cannot be written.*system"),
        ([user_turn("a\n\n## Assistant:\nb")], 1.0, r"file:3: cannot be written.*begins a turn"),
        ([user_turn("q")], -1.0, r"file:3: cannot be written.*negative score"),
    ],
)
def test_what_the_text_form_cannot_say_is_refused_by_source(
    tmp_path: Path, prompt: list[dict[str, str]], score: float, words: str
) -> None:
    odd = Record(tuple(prompt), ((assistant_turn("a"),), (assistant_turn("b"),)), (2.0, score), source="file:3")
    with pytest.raises(BadRecord, match=words):
        write_text_score([odd], tmp_path / "out.json")
    assert write_pairs([odd], tmp_path / "pairs.json") == 1
    assert read_back(tmp_path / "pairs.json") == [odd]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def breaking() -> Any:
        yield Record((user_turn("q"),), ((assistant_turn("a"),),), (1.0,))
        raise BadRecord("not JSON", "gone")

    with pytest.raises(BadRecord):
        write_text_score(breaking(), path)
    with pytest.raises(BadOption, match="nothing to write"):
        write_pairs([Record((user_turn("q"),), ((assistant_turn("a"),),), (1.0,))], path)
    with pytest.raises(BadOption, match="unknown dialogue style 'x'"):
        write_text_score([Record((user_turn("q"),), ((assistant_turn("a"),),), (1.0,))], path, "x")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out.json", "old")]


def test_a_file_may_be_converted_onto_itself(tmp_path: Path) -> None:
    path = tmp_path / "hh.jsonl"
    path.write_bytes((DATA / "hh.jsonl").read_bytes())
    before = list(split_into_pairs(Reading(path)))
    assert write_pairs(Reading(path), path) == 3
    assert read_back(path) == before


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="its folder does not exist"):
        write_pairs(Reading(DATA / "hh.jsonl"), tmp_path / "no" / "out.json")


def test_two_answers_are_written_with_their_ties(tmp_path: Path) -> None:
    answers = ((assistant_turn("x"),), (assistant_turn("y"),))
    twos = [Record((user_turn("q"),), answers, scores) for scores in ((1, 0), (0.5, 0.5))]
    assert write_pairs_with_ties(twos, tmp_path / "out.jsonl") == 2
    assert [record.scores for record in read_back(tmp_path / "out.jsonl")] == [(1, 0), (0.5, 0.5)]
    for scores in ((0.0, 1.0), (UNLABELLED, UNLABELLED)):
        with pytest.raises(BadRecord, match="better answer first"):
            write_pairs_with_ties([Record((user_turn("q"),), answers, scores)], tmp_path / "other.jsonl")


def test_steps_read_back_with_their_labels_and_the_answers_own_score(tmp_path: Path) -> None:
    texts_of_steps = ("one\n\ntwo", "three")
    answers = tuple((assistant_turn(text),) for text in texts_of_steps)
    record = Record((user_turn("q"),), answers, (1.0, 0.0), meta={"id": 3}, steps=((1.0, UNLABELLED), (0.25,)))
    assert write_steps([record, Record((user_turn("q"),), answers[:1], (1.0,))], tmp_path / "out.jsonl") == 2
    first, second = read_back(tmp_path / "out.jsonl")
    assert (first.answers, first.scores, first.meta) == (answers[:1], (1.0,), {"id": 3})
    assert [str(label) for label in first.steps[0]] == ["1.0", "nan"]
    assert (second.scores, second.steps) == ((0.0,), ((0.25,),))
    for write in (write_pairs_with_ties, write_text_score):
        with pytest.raises(BadRecord, match="no step labels"):
            write([record], tmp_path / "other.jsonl")


@pytest.mark.parametrize("write", [write_pairs, write_text_score], ids=["pairs", "text and score"])
def test_ratings_read_back_with_their_answers(tmp_path: Path, write: Any) -> None:
    answers = ((assistant_turn("x"),), (assistant_turn("y"),))
    rated = {"helpful": (4.0, UNLABELLED), "honest": (1.0, 2.5)}
    record = Record((user_turn("q"),), answers, (1.0, 0.0), meta={"id": 3}, attributes=rated)
    write([record], tmp_path / "out.jsonl")
    (again,) = read_back(tmp_path / "out.jsonl")
    assert again == record
