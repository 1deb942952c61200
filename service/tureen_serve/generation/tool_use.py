"""The tools that a request offers: how a model's template writes their calls, and the grammar of forced calls. Pure."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tureen.errors import InvalidRequest, Unprocessable
from tureen.wire import ChatRequest
from tureen_core.chat_template import UNSUPPORTED
from tureen_serve.generation.structure import bound_spaces
from tureen_serve.runtimes.grammar_proof import HEADER, GrammarSource

Choice = Literal["auto", "required", "named"]


@dataclass(frozen=True)
class CallFormat:
    """How a model writes a call: ``opening``, an object with ``name`` and ``arguments``, ``closing``.

    Attributes:
        arguments: the name of the arguments in the object.
        several: whether one answer may hold several calls.
    """

    opening: str
    closing: str
    arguments: str
    several: bool


HERMES = CallFormat("<tool_call>\n", "\n</tool_call>", "arguments", several=True)  # and Qwen 2.5 and 3
LLAMA = CallFormat("", "", "parameters", several=False)  # 3.1 and later: the whole answer is the call


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request, and whether one must be called."""

    tools: Sequence[Mapping[str, Any]]
    choice: Choice
    parallel: bool
    format: CallFormat

    @property
    def names(self) -> list[str]:
        """The names of the functions that may be called."""
        return [tool["function"]["name"] for tool in self.tools]


def read_tool_use(request: ChatRequest, template: str, hidden: Collection[str] = ()) -> ToolUse | None:
    """Find the tools that a request lets the model call; None if there are none.

    Args:
        template: the source of the model's chat template.
        hidden: the special tokens, which are no part of a text.

    Raises:
        InvalidRequest: two fields contradict each other.
        Unprocessable: a tool or ``tool_choice`` cannot be used, or the calls of this template cannot be read.
    """
    choice, wanted, param = _read_choice(request.tool_choice)
    if choice == "none":
        return None
    if not request.tools:
        if choice == "auto":
            return None
        raise InvalidRequest("`tool_choice` asks for a call and `tools` is empty; send tools", param="tool_choice")
    if request.candidates is not None:
        message = "candidates cannot be judged beside tools, since rewards read texts; send `tool_choice: none`"
        raise Unprocessable(message, param="candidates", code="unsupported_parameter")
    bound = request.response_format is not None and request.response_format.type != "text"
    if bound or request.structured_outputs is not None:
        message = (
            "a text that is bound to a grammar cannot call tools; send `tool_choice: none`, or leave the grammar out"
        )
        raise InvalidRequest(message, param="tools")
    names = [tool["function"]["name"] for tool in request.tools]
    twice = next((each for each in names if names.count(each) > 1), None)
    if twice is not None:
        raise Unprocessable(f"two tools are called {twice!r}; rename one", param="tools")
    strange = [name for name in wanted or () if name not in names]
    if strange:
        message = f"no tool is called {strange[0]!r}; send one of {', '.join(names)}"
        raise Unprocessable(message, param=param)
    tools = [tool for tool in request.tools if wanted is None or tool["function"]["name"] in wanted]
    found = find_call_format(template, hidden)
    return ToolUse(tools, choice, request.parallel_tool_calls is not False, found)


def find_call_format(template: str, hidden: Collection[str]) -> CallFormat:
    """Find how the calls of a template are written.

    Args:
        hidden: the special tokens, which are no part of a text.

    Raises:
        Unprocessable: in no way that is read here.
    """
    if "<tool_call>" in template and "<function=" not in template and "<tool_call>" not in hidden:
        return HERMES
    if "<|python_tag|>" in template and '"parameters": ' in template:
        return LLAMA
    message = "this model's chat template writes no calls that are read here; send `tool_choice: none`"
    raise Unprocessable(message, param="tools", code=UNSUPPORTED)


def write_call_grammar(use: ToolUse) -> GrammarSource | None:
    """Write the grammar of an answer that must call; None if it need not.

    The arguments of each call satisfy the JSON schema of its function, ``parameters``; without one any object does.
    """
    if use.choice == "auto":
        return None
    several = use.parallel and use.format.several and use.choice == "required"
    lines = ['start: call ("\\n" call)*' if several else "start: call"]
    parts = (
        _quote(use.format.opening),
        f"({' | '.join(f'f{at}' for at in range(len(use.tools)))})",
        _quote(use.format.closing),
    )
    lines.append(f"call: {' '.join(filter(None, parts))}")
    for at, tool in enumerate(use.tools):
        function = tool["function"]
        schema = function.get("parameters") or {"type": "object"}
        head = f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "{use.format.arguments}": '
        lines.append(f'f{at}: {_quote(head)} %json {json.dumps(bound_spaces(schema))} "}}"')
    return GrammarSource("grammar", HEADER + "\n".join(lines) + "\n", "tools")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""


def _read_choice(
    given: str | Mapping[str, Any] | None,
) -> tuple[Choice | Literal["none"], Sequence[str] | None, str]:
    """Read whether a call is wanted, the only names that may be called, and the field that says these names."""
    if given is None or isinstance(given, str):
        return {"none": "none", "required": "required"}.get(given or "", "auto"), None, "tool_choice"  # type: ignore[return-value]
    if given.get("type") == "allowed_tools":
        return _read_allowed(given.get("allowed_tools"))
    name = _read_name(given)
    if name is None:
        message = (
            '`tool_choice` must be "none", "auto", "required", {"type": "function", "function": {"name": ...}} or '
            '{"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}}'
        )
        raise Unprocessable(message, param="tool_choice")
    return "named", [name], "tool_choice.function.name"


def _read_allowed(given: object) -> tuple[Choice, Sequence[str], str]:
    field = "tool_choice.allowed_tools"
    if not isinstance(given, dict) or given.get("mode") not in ("auto", "required"):
        raise Unprocessable(f'`{field}.mode` must be "auto" or "required"', param=f"{field}.mode")
    tools = given.get("tools")
    names = [_read_name(each) for each in tools] if isinstance(tools, list) else []
    found = [name for name in names if name is not None]
    if not found or len(found) < len(names):
        message = f'`{field}.tools` must be a list of {{"type": "function", "function": {{"name": ...}}}}'
        raise Unprocessable(message, param=f"{field}.tools")
    return given["mode"], found, f"{field}.tools"


def _read_name(given: object) -> str | None:
    if not isinstance(given, Mapping) or given.get("type") != "function":
        return None
    function = given.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
