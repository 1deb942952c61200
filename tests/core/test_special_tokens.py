"""The special tokens around one text and between two are the tokenizer's own, also where a text is cut."""

from pathlib import Path
from typing import Any

import pytest
from classifiers import PAIRS, make_tokenizer, write_conversation

from tureen.errors import Unprocessable
from tureen_core.plain.templates import PAIR, set_template
from tureen_core.reading import Cut, Reading
from tureen_core.special_tokens import TokenizerFrame
from tureen_core.template import Renderer

FRAMED = ("wordpiece", "modern", "bpe", "unigram", "t5")
LONG = ("Why do leaves fall in autumn, and why then? " * 20, "The wind reads the last letters of the trees.")


@pytest.fixture(params=FRAMED)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return make_tokenizer(request.param)


def renderer(tokenizer: Any, length: int = 160, **changes: Any) -> Renderer:
    set_template(tokenizer, PAIR, None, Path("model"))
    reading = Reading(bos="none", eos="none", frame="pair", max_length=length, **changes)
    return Renderer(tokenizer, reading, own_pad=False)


def test_a_pair_has_the_ids_and_segments_that_the_tokenizer_gives_it(tokenizer: Any) -> None:
    own, frame = renderer(tokenizer), TokenizerFrame(tokenizer, pair=True)
    for prompt, answer in (*PAIRS, ("", "Lima."), ("Lima?", ""), (" spaces ", "  before\n\nand after "), ("猫", "…")):
        wanted = tokenizer([prompt], [answer], return_token_type_ids=True)
        found = own.render_conversation(write_conversation(prompt, answer)).ids
        assert found == wanted["input_ids"][0], (prompt, answer)
        assert frame.list_segments(found) == wanted["token_type_ids"][0]


def test_a_text_without_special_tokens_gets_them_once(tokenizer: Any) -> None:
    own = renderer(tokenizer)
    wanted = tokenizer("Lima is the capital.", return_token_type_ids=True)
    bare = tokenizer("Lima is the capital.", add_special_tokens=False)["input_ids"]
    assert own.render_text("Lima is the capital.").ids == wanted["input_ids"]
    assert TokenizerFrame(tokenizer, pair=True).list_segments(wanted["input_ids"]) == wanted["token_type_ids"]
    before, between, after = TokenizerFrame(tokenizer, pair=True).texts
    assert own.render_text(f"{before}Lima is the capital.{after}").ids == wanted["input_ids"]
    assert own.render_text("Lima is the capital.", specials=False).ids == bare
    whole = tokenizer("Peru?", "Lima.")["input_ids"]
    assert own.render_text(f"{before}Peru?{between}Lima.{after}").ids == whole


def test_a_prompt_that_is_too_long_loses_its_beginning_as_by_the_tokenizers_own_truncation(tokenizer: Any) -> None:
    tokenizer.truncation_side = "left"
    wanted = tokenizer(*LONG, truncation="only_first", max_length=160)["input_ids"]
    tokenizer(*LONG)
    found = renderer(tokenizer).render_conversation(write_conversation(*LONG))
    assert found.truncated
    assert found.ids == wanted
    with pytest.raises(Unprocessable, match="this model reads 160"):
        renderer(tokenizer).render_conversation(write_conversation(*LONG), truncate=False)


def test_an_answer_that_is_too_long_is_cut_after_the_whole_prompt_and_keeps_all_special_tokens(tokenizer: Any) -> None:
    prompt, answer = LONG[::-1]
    empty = tokenizer([""], [""])["input_ids"][0]
    inner = tokenizer(answer, add_special_tokens=False)["input_ids"]
    found = renderer(tokenizer, length=32).render_conversation(write_conversation(prompt, answer)).ids
    assert len(found) == 32
    specials = len(empty)
    assert [each for each in found if each in empty] == empty
    assert [each for each in found if each not in empty] == inner[-(32 - specials) :]
    right = renderer(tokenizer, length=32).render_conversation(write_conversation(*LONG), Cut(side="right")).ids
    opened = tokenizer(LONG[0], add_special_tokens=False)["input_ids"]
    assert [each for each in right if each not in empty] == opened[: 32 - specials]
    assert [each for each in right if each in empty] == empty


def test_a_limit_below_the_special_tokens_is_refused(tokenizer: Any) -> None:
    specials = len(tokenizer([""], [""])["input_ids"][0])
    with pytest.raises(Unprocessable, match="too few"):
        renderer(tokenizer).render_conversation(write_conversation(*LONG), Cut(length=specials - 1))


@pytest.mark.parametrize("reader", ["wordpiece", "unigram"])
def test_special_tokens_in_a_message_are_plain_text(reader: str) -> None:
    tokenizer = make_tokenizer(reader)
    own = renderer(tokenizer)
    found = own.render_conversation(write_conversation("one [SEP] two [CLS]", "three [CLS] four [SEP] five"))
    assert found.normalised == ("control_marks",)
    assert found.ids.count(tokenizer.cls_token_id) == 1
    assert found.ids.count(tokenizer.sep_token_id) == 2
    assert len(found.ids) > len(tokenizer("one two", "three four five")["input_ids"])


def test_two_separators_cannot_be_read_as_a_prompt_and_an_answer() -> None:
    tokenizer = make_tokenizer("wordpiece")
    ids = tokenizer("one [SEP] two", "three")["input_ids"]
    with pytest.raises(Unprocessable, match=r"\[SEP\] stands 2 times"):
        TokenizerFrame(tokenizer, pair=True).list_segments(ids)
    single = TokenizerFrame(tokenizer, pair=False)
    assert single.list_segments(ids) == [0] * len(ids)
    assert single.cut_ids(ids, 4, "left") == [ids[0], *ids[-3:]]


def test_a_tokenizer_that_puts_nothing_between_two_texts_has_no_pairs() -> None:
    with pytest.raises(ValueError, match="no special token between"):
        TokenizerFrame(make_tokenizer("bare"), pair=True)
