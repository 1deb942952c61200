"""The tools of a request, the format of a template's calls, and the grammar of forced calls."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import tiny

from tureen.errors import InvalidRequest, Unprocessable
from tureen.wire import ChatRequest
from tureen_core.base import load_tokenizer
from tureen_serve.generation.tool_use import HERMES, LLAMA, find_call_format, read_tool_use, write_call_grammar
from tureen_serve.runtimes.grammar_proof import GrammarProver
from tureen_serve.runtimes.grammars import GrammarBook

SCHEMA = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"city": {"enum": ["Oslo", "Rome"]}},
}
TOOLS = [
    {"type": "function", "function": {"name": "get", "description": "d", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
NAMED = {"type": "function", "function": {"name": "get"}}
OSLO = '<tool_call>\n{"name": "get", "arguments": {"city": "Oslo"}}\n</tool_call>'
BONN = OSLO.replace("Oslo", "Bonn")
SPACED = OSLO.replace('"Oslo"}', '"Oslo" }')
NOW = '<tool_call>\n{"name": "now", "arguments": {"a":1}}\n</tool_call>'


def asked(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], **fields})


def allow(mode: str, *names: Any) -> dict[str, Any]:
    """A ``tool_choice`` of some tools."""
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def use(**fields: Any) -> Any:
    return read_tool_use(asked(**fields), tiny.TOOLS)


@pytest.mark.parametrize(
    "fields",
    [{}, {"tools": []}, {"tool_choice": "auto"}, {"tools": TOOLS, "tool_choice": "none"}, {"tool_choice": "none"}],
)
def test_no_tool_may_be_called(fields: dict[str, Any]) -> None:
    assert use(**fields) is None


def test_none_is_never_refused() -> None:
    assert read_tool_use(asked(tools=TOOLS, tool_choice="none"), tiny.CHATML) is None


def test_the_tools_that_may_be_called() -> None:
    assert (use(tools=TOOLS).choice, use(tools=TOOLS).names) == ("auto", ["get", "now"])
    assert use(tools=TOOLS, tool_choice="required").choice == "required"
    assert use(tools=TOOLS, tool_choice=NAMED).names == ["get"]
    assert not use(tools=TOOLS, parallel_tool_calls=False).parallel
    for mode in ("auto", "required"):
        found = use(tools=TOOLS, tool_choice=allow(mode, "now"))
        assert (found.choice, found.names) == (mode, ["now"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools.mode"),
        ({"tools": TOOLS, "tool_choice": allow("none", "get")}, "tool_choice.allowed_tools.mode"),
        ({"tools": TOOLS, "tool_choice": allow("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allow("auto", None)}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": allow("auto", "get", "x")}, "tool_choice.allowed_tools.tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools"),
        ({"tools": TOOLS, "candidates": {"n": 2}}, "candidates"),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "tools"),
        ({"tools": TOOLS, "structured_outputs": {"regex": "a"}}, "tools"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        use(**fields)
    assert caught.value.param == param


def test_formats_of_templates() -> None:
    assert find_call_format(tiny.TOOLS, ()) is HERMES
    assert find_call_format("<|python_tag|> {{ '\"parameters\": ' }}", ()) is LLAMA
    for template, hidden in ((tiny.CHATML, ()), ("<tool_call><function=", ()), (tiny.TOOLS, ("<tool_call>",))):
        with pytest.raises(Unprocessable) as caught:
            find_call_format(template, hidden)
        assert caught.value.param == "tools"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokens = load_tokenizer(tiny.base(tmp_path_factory.mktemp("tools") / "base"))
    return tokens, GrammarBook(tokens, len(tokens), [tokens.eos_token_id])


@pytest.fixture(scope="module")
def prover() -> Iterator[GrammarProver]:
    made = GrammarProver()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        (
            {"tool_choice": "required"},
            [OSLO, NOW, f"{OSLO}\n{NOW}"],
            ["Hello", BONN, SPACED, ""],
        ),
        ({"tool_choice": "required", "parallel_tool_calls": False}, [OSLO, NOW], [f"{OSLO}\n{NOW}"]),
        ({"tool_choice": NAMED}, [OSLO], [NOW, f"{OSLO}\n{OSLO}"]),
        ({"tool_choice": allow("required", "get")}, [OSLO, f"{OSLO}\n{OSLO}"], [NOW, ""]),
    ],
)
def test_forced_calls_satisfy_their_schemas(
    book: Any, prover: GrammarProver, fields: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    tokens, grammars = book
    source = write_call_grammar(use(tools=TOOLS, **fields))
    assert source is not None
    grammar = grammars.compile(source, prover)

    def accepts(text: str) -> bool:
        state = grammar.start()
        for token in [*tokens(text, add_special_tokens=False)["input_ids"], tokens.eos_token_id]:
            if not state.list_allowed()[token]:
                return False
            state.accept(token)
        return True

    assert [accepts(text) for text in good] == [True] * len(good)
    assert not any(accepts(text) for text in bad)


def test_a_free_choice_has_no_grammar() -> None:
    assert write_call_grammar(use(tools=TOOLS)) is None


def test_a_name_cannot_leave_its_quotes(book: Any, prover: GrammarProver) -> None:
    name = 'a" | /.*/ #\n'
    tool = {"type": "function", "function": {"name": name}}
    source = write_call_grammar(use(tools=[tool], tool_choice="required"))
    assert source is not None
    state = book[1].compile(source, prover).start()
    for token in book[0](f'<tool_call>\n{{"name": {json.dumps(name)}, ', add_special_tokens=False)["input_ids"]:
        assert state.list_allowed()[token]
        state.accept(token)
