"""Rows of numbers as bytes, and texts cut to so many tokens: what vLLM's routes do before and after a score."""

import base64
import struct
import sys

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from tureen.errors import Unprocessable
from tureen_core.reading import Cut
from tureen_serve.dialects.query_documents import pair_texts, shorten_text
from tureen_serve.dialects.vllm_encoding import DTYPES, Encoding

TOKENS = tiny.tokenizer()
ROW = [1.5, -0.25, 3.0]


def count(text: str) -> int:
    return len(TOKENS(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("dtype", "endianness", "form"),
    [("float32", "little", "<3f"), ("float32", "big", ">3f"), ("float16", "little", "<3e"), ("float16", "big", ">3e")],
)
def test_numbers_as_other_readers_unpack_them(dtype: str, endianness: str, form: str) -> None:
    assert list(struct.unpack(form, Encoding(dtype, endianness).block(ROW))) == ROW


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_read_back_by_torch(dtype: str) -> None:
    block = Encoding(dtype, "native").block(ROW)
    assert torch.frombuffer(bytearray(block), dtype=DTYPES[dtype]).tolist() == ROW
    assert Encoding(dtype, sys.byteorder).block(ROW) == block
    other = Encoding(dtype, "big" if sys.byteorder == "little" else "little").block(ROW)
    size = DTYPES[dtype].itemsize
    assert other == b"".join(block[at : at + size][::-1] for at in range(0, len(block), size))


def test_base64_is_that_of_the_block() -> None:
    encoding = Encoding("bfloat16", "big")
    assert base64.b64decode(encoding.text(ROW)) == encoding.block(ROW)


def test_blocks_stand_one_after_another() -> None:
    content, told = Encoding("float16", "native").blocks([[1.0], [2.0, 3.0], [4.0]])
    assert [(each["index"], each["start"], each["end"], each["shape"]) for each in told] == [
        (0, 0, 2, [1]),
        (1, 2, 6, [2]),
        (2, 6, 8, [1]),
    ]
    assert len(content) == told[-1]["end"]
    assert {(each["embed_dtype"], each["endianness"]) for each in told} == {("float16", "native")}


@pytest.mark.parametrize(
    ("dtype", "number"), [("fp8_e4m3", 1e3), ("fp8_e5m2", 1e6), ("float16", -1e5), ("float32", 1e39)]
)
def test_a_number_beyond_the_type_is_refused_and_no_infinity(dtype: str, number: float) -> None:
    for write in (Encoding(dtype, "native").block, Encoding(dtype, "native").text):
        with pytest.raises(Unprocessable, match=f"too large for {dtype}") as caught:
            write([0.0, number])
        assert caught.value.param == "embed_dtype"


# --------------------------------------------------------------------------- pairs


@given(st.text(max_size=60), st.integers(1, 12))
def test_a_shortened_text_is_a_beginning_of_so_many_tokens(text: str, most: int) -> None:
    kept = shorten_text(text, TOKENS, most)
    assert text.startswith(kept)
    assert count(kept) <= most
    assert kept == text or count(text) > most


def test_what_fits_is_not_touched() -> None:
    text = "  the quick brown fox \n"
    assert shorten_text(text, TOKENS, count(text)) == text
    assert count(shorten_text(text, TOKENS, count(text) - 1)) == count(text) - 1
    assert shorten_text("", TOKENS, 1) == ""


def test_one_query_is_every_documents() -> None:
    (group,) = pair_texts(["q"], ["a", "b"], Cut(3))
    assert group.prompt == [{"role": "user", "content": "q"}]
    assert [answer[0] for answer in group.answers] == [{"role": "assistant", "content": text} for text in ("a", "b")]
    assert group.cut == Cut(3)


def test_neighbours_of_one_query_are_one_group_and_order_is_kept() -> None:
    groups = pair_texts(["q", "q", "r", "q"], ["a", "b", "c", "d"])
    assert [(group.prompt[0]["content"], len(group)) for group in groups] == [("q", 2), ("r", 1), ("q", 1)]
    assert [answer[0]["content"] for group in groups for answer in group.answers] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("queries", "documents"), [([], ["a"]), (["q"], []), ([], []), (["q", "r"], ["a", "b", "c"])])
def test_what_cannot_be_paired(queries: list[str], documents: list[str]) -> None:
    with pytest.raises(Unprocessable):
        pair_texts(queries, documents)
