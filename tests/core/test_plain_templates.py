"""The templates that ``--template`` names, each to the last character."""

from pathlib import Path

import pytest
from classifiers import make_tokenizer

from tureen.errors import Unprocessable
from tureen_core.chat_template import ChatTemplate
from tureen_core.plain.options import PlainError
from tureen_core.plain.templates import TEMPLATES, choose_frame, set_template
from tureen_core.turns import Turn

TURNS: list[Turn] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "so"},
]
WANTED = {
    "answer": ("so", ""),
    "roles": ("user: hi\nassistant: hello\nuser: why?\nassistant: so\n", "assistant: "),
    "chatml": (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
        "<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\nso<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    "hh": ("\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant: so", "\n\nAssistant: "),
}


def template(name: str, reader: str = "wordpiece") -> ChatTemplate:
    tokenizer = make_tokenizer(reader)
    set_template(tokenizer, name, None, Path("model"))
    return ChatTemplate(tokenizer)


@pytest.mark.parametrize("name", WANTED)
def test_each_named_template_writes_this(name: str) -> None:
    whole, opening = WANTED[name]
    assert template(name).write_messages(TURNS, opening="nothing") == whole
    prompt = template(name).write_messages(TURNS[:3], opening="answer")
    assert prompt.endswith(opening)
    assert whole.startswith(prompt)


@pytest.mark.parametrize(
    ("reader", "wanted"),
    [("wordpiece", "[CLS]why?[SEP]so[SEP]"), ("bpe", "<s>why?</s></s>so</s>"), ("t5", "why?</s>so</s>")],
)
def test_a_pair_has_the_tokenizers_own_marks(reader: str, wanted: str) -> None:
    assert template("text-pair", reader).write_messages(TURNS[2:], opening="nothing") == wanted
    assert wanted.startswith(template("text-pair", reader).write_messages(TURNS[2:3], opening="answer"))


@pytest.mark.parametrize(
    "turns", [TURNS, TURNS[1:2], [{"role": "system", "content": "be"}, TURNS[1]], [TURNS[0], TURNS[2]]]
)
def test_what_is_no_pair_is_refused(turns: list[Turn]) -> None:
    with pytest.raises(Unprocessable, match="text-pair reads one message of the user and its answer"):
        template("text-pair").write_messages(turns, opening="nothing")


def test_the_choices_are_named() -> None:
    assert sorted(TEMPLATES) == sorted([*WANTED, "text-pair"])
    with pytest.raises(PlainError, match=r"'no-such' is neither a file nor one of text-pair, answer, roles"):
        template("no-such")
    with pytest.raises(PlainError, match="puts no special token between two texts; --template text-pair cannot"):
        template("text-pair", "bare")


def test_what_the_tokenizer_puts_around_a_text() -> None:
    assert choose_frame("text-pair", framed=False) == "pair"
    assert choose_frame("answer", framed=False) == "text"
    assert choose_frame("hh", framed=False) == "none"
    assert choose_frame("hh", framed=True) == choose_frame(None, framed=True) == "text"
    assert choose_frame("hh", framed=False, ends_itself=True) == "none"
    with pytest.raises(PlainError, match="template: models of this form end their texts by themselves"):
        choose_frame("answer", framed=False, ends_itself=True)
