"""Compiled grammars against texts that satisfy them and texts that do not, and grammars that are attacks."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tokenizers import decoders

from tureen.errors import ServerFault, Unprocessable
from tureen_core.base import has_mixed_decoder, load_tokenizer
from tureen_serve.generation.structure import bound_spaces
from tureen_serve.runtimes.grammar_proof import LIMITS, GrammarProver, GrammarSource, Kind
from tureen_serve.runtimes.grammars import GrammarBook, GrammarState

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def prover() -> Iterator[GrammarProver]:
    made = GrammarProver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(tiny.base(tmp_path_factory.mktemp("grammars") / "base"))


@pytest.fixture(scope="module")
def book(tokens: Any) -> GrammarBook:
    return GrammarBook(tokens, len(tokens), [tokens.eos_token_id])


def source(kind: Kind, value: Any) -> GrammarSource:
    return GrammarSource(kind, value if isinstance(value, str) else json.dumps(value), "field")


def accepts(state: GrammarState, tokens: Any, text: str) -> bool:
    """Whether every token of a text is allowed in its place, and the text may end after it."""
    for token in [*tokens(text, add_special_tokens=False)["input_ids"], tokens.eos_token_id]:
        if not state.list_allowed()[token]:
            return False
        state.accept(token)
    return True


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("json", PERSON, '{"name": "Zoë 😀\\n", "age": 3}', '{"name": "Zoë"}'),
        ("json", PERSON, '{\n\t"name":"","age":-1\n}', '{"name": "a", "age": 3, "more": 1}'),
        ("json", {"type": "object"}, '{"a": [1, null]}', "[1]"),
        ("json", bound_spaces(PERSON), '{"name": " ","age":3}', '{"name":  "", "age": 3}'),
        ("json", bound_spaces(PERSON), '{"name":"", "age": 3}', '{ "name":"","age":3}'),
        ("json", bound_spaces({}), '{"a": [1, {}, {"b":[]}]}', '{"a": [1, {} ]}'),
        ("regex", r"[a-c]{2}/\d+", "ab/12", "ab/"),
        ("choice", ["né", 'q"\\', "a\nb"], "né", "n"),
        ("choice", ["né", 'q"\\', "a\nb"], 'q"\\', "né "),
        ("choice", ["né", 'q"\\', "a\nb"], "a\nb", "a"),
        ("grammar", 'root ::= "x" digit+\ndigit ::= [0-9]', "x42", "x"),
        ("grammar", '?start: "a" | b\nb: "c"+', "ccc", "ac"),
    ],
)
def test_a_grammar_allows_what_satisfies_it_and_nothing_else(
    book: GrammarBook, prover: GrammarProver, tokens: Any, kind: Kind, value: Any, good: str, bad: str
) -> None:
    grammar = book.compile(source(kind, value), prover)
    assert accepts(grammar.start(), tokens, good)
    assert not accepts(grammar.start(), tokens, bad)
    assert book.find(source(kind, value)) is grammar


def test_a_token_that_is_not_allowed_is_an_error(book: GrammarBook, prover: GrammarProver, tokens: Any) -> None:
    state = book.compile(source("choice", ["yes"]), prover).start()
    with pytest.raises(ServerFault, match="does not allow"):
        state.accept(tokens("no", add_special_tokens=False)["input_ids"][0])


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("regex", "(a", "unclosed group"),
        ("regex", r"(a)\1", "backreferences"),
        ("grammar", "start: foo", "unknown name"),
        ("grammar", "root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "recursion"),
        ("json", {"type": "lake"}, "Invalid type"),
        ("json", {"not": {"type": "string"}}, "Unimplemented keys"),
        ("json", {"$ref": "http://127.0.0.1:1/x"}, "does not fetch"),
        ("json", {"$ref": "#"}, "no text satisfies it"),
        ("grammar", "start: start", "no text satisfies it"),
    ],
)
def test_what_is_no_grammar_is_refused_with_the_reason(
    book: GrammarBook, prover: GrammarProver, kind: Kind, value: Any, why: str
) -> None:
    with pytest.raises(Unprocessable, match=why) as caught:
        book.compile(source(kind, value), prover)
    assert (caught.value.param, caught.value.code) == ("field", "invalid_grammar")
    assert book.find(source(kind, value)) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("grammar", 'start: "' + "a" * 2**20 + '"'),
        ("json", {"type": "array", "minItems": 10**8}),
        pytest.param("json", {"allOf": [{"pattern": f"a{{{i}}}.*b"} for i in range(100)]}, marks=pytest.mark.long),
        pytest.param("json", {"type": "array", "maxItems": 10**6}, marks=pytest.mark.long),
    ],
)
def test_a_grammar_that_takes_too_much_work_is_refused_and_the_next_one_compiles(
    book: GrammarBook, prover: GrammarProver, tokens: Any, kind: Kind, value: Any
) -> None:
    with pytest.raises(Unprocessable) as caught:
        book.compile(source(kind, value), prover)
    assert caught.value.code == "grammar_too_complex"
    assert accepts(book.compile(source("choice", [f"after {kind}"]), prover).start(), tokens, f"after {kind}")


def test_a_text_that_grows_too_complex_ends_with_an_error_and_leaves_others_alone(
    book: GrammarBook, prover: GrammarProver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The automaton of ``.*[a-m].{60}[a-z]`` doubles with each character."""
    monkeypatch.setitem(LIMITS, "max_lexer_states", 200)
    grammar = book.compile(source("regex", "(.*[a-m].{60}[a-z])"), prover)

    def write(seed: int, length: int) -> None:
        state, draws = grammar.start(), random.Random(seed)
        for _ in range(length):
            state.accept(int(draws.choice(np.nonzero(state.list_allowed())[0])))

    with pytest.raises(Unprocessable, match="too complex") as caught:
        write(0, 200)
    assert caught.value.code == "grammar_too_complex"
    write(1, 3)  # though it shares the automaton with the text before


def test_only_some_grammars_are_kept(tokens: Any, prover: GrammarProver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_serve.runtimes.grammars.KEPT", 2)
    book = GrammarBook(tokens, len(tokens), [tokens.eos_token_id])
    for text in ("a", "b", "a", "c"):
        book.compile(source("choice", [text]), prover)
    assert [book.find(source("choice", [text])) is not None for text in "abc"] == [True, False, True]


def test_a_tokenizer_whose_bytes_llguidance_misreads_enforces_nothing(tokens: Any, prover: GrammarProver) -> None:
    """As transformers writes the decoder of a GGUF file; ``load_tokenizer`` mends it."""
    backend = tokens.backend_tokenizer
    kinds = [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.ByteLevel()]
    backend.decoder = decoders.Sequence(kinds)
    try:
        assert has_mixed_decoder(backend.decoder.__getstate__())
        with pytest.raises(Unprocessable, match="byte by byte"):
            GrammarBook(tokens, len(tokens), [2]).compile(source("choice", ["a"]), prover)
    finally:
        backend.decoder = decoders.ByteLevel()


def test_a_decoder_of_two_alphabets_is_mended_where_a_tokenizer_is_loaded(tmp_path: Path) -> None:
    tok = tiny.tokenizer()
    kinds = [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.ByteLevel()]
    tok.backend_tokenizer.decoder = decoders.Sequence(kinds)
    tok.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert not has_mixed_decoder(loaded.backend_tokenizer.decoder.__getstate__())
    text = "naïve\n 😀"
    assert loaded.decode(loaded(text, add_special_tokens=False)["input_ids"]) == text


def test_a_policy_whose_texts_nothing_ends_enforces_nothing(tokens: Any, prover: GrammarProver) -> None:
    with pytest.raises(Unprocessable, match="no token that ends a text"):
        GrammarBook(tokens, len(tokens), []).compile(source("choice", ["a"]), prover)
