"""A model's own chat template: the fields of a message that it reads, and the text that it writes.

The fields are found in its syntax tree. If a template does not read tools, calls of tools or their results, a message
with them is refused: without them the reward would be of another text. Thoughts and names that it does not read are
left out, and reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser

from tureen.errors import Unprocessable
from tureen.messages import THOUGHTS
from tureen.tool_calls import parse_arguments
from tureen_core.turns import Messages, Turn

TODAY = datetime(2024, 7, 26)  # what the templates of Llama 3 print where they cannot ask for the date
UNSUPPORTED = "unsupported_by_template"
# what the server or the library sets
SET_HERE = {
    *("messages", "tools", "documents", "conversation", "chat_template", "add_generation_prompt", "tokenize"),
    *("continue_final_message", "return_dict", "return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    *("padding", "truncation", "max_length", "strftime_now", "raise_exception", "self"),
}


Opening = Literal["answer", "nothing", "last message"]  # what the policy is to write after the messages


@dataclass(frozen=True)
class TemplateInputs:
    """The inputs of a template beside the messages.

    Attributes:
        tools: descriptions in OpenAI's form, see :func:`tureen.tool_calls.read_tools`.
        arguments: variables of the template, such as ``enable_thinking``; on the wire ``chat_template_kwargs``.
    """

    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


NO_INPUTS = TemplateInputs()


@dataclass(frozen=True)
class WrittenText:
    """The text that a template wrote, with hidden control marks, and the fields that were not read as sent."""

    text: str
    normalised: frozenset[str] = frozenset()


def make_template_inputs(arguments: Mapping[str, Any]) -> TemplateInputs:
    """Make inputs from the fields ``tools`` and ``chat_template_kwargs`` of the wire. Both may be missing."""
    return TemplateInputs(arguments.get("tools", ()), arguments.get("chat_template_kwargs", {}))


@dataclass(frozen=True)
class TemplateFields:
    """The names that a template reads.

    Attributes:
        names: fields of messages, and other attributes.
        texts: the constants that it compares with, such as roles.
        variables: the variables that it does not set itself.
        asks_for_null: whether it treats null content and empty content differently.
        writes_roles: whether it writes any role as it is given.
    """

    names: frozenset[str]
    texts: frozenset[str]
    variables: frozenset[str]
    asks_for_null: bool
    writes_roles: bool


class GenerationTag(Extension):
    """The library's tag around an assistant's text. Here it has no effect."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the body of the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=64)
def read_template_fields(template: str) -> TemplateFields:
    """Find in a template's syntax tree the names that it reads."""
    tree = Environment(extensions=[GenerationTag, "jinja2.ext.loopcontrols"]).parse(template)
    return TemplateFields(
        names=frozenset(_list_names(tree)),
        texts=frozenset(each.value for each in tree.find_all(nodes.Const) if isinstance(each.value, str)),
        variables=frozenset(find_undeclared_variables(tree)),
        asks_for_null=any(
            test.name == "none" and "content" in set(_list_names(test)) for test in tree.find_all(nodes.Test)
        ),
        writes_roles=any("role" in _list_written(output) for output in tree.find_all(nodes.Output)),
    )


def _list_names(tree: nodes.Node) -> Iterator[str]:
    """List the names in ``message.name``, ``message['name']``, ``'name' in message`` and ``message.get('name')``."""
    found = [tree] if isinstance(tree, nodes.Getattr | nodes.Getitem) else []
    for node in (*found, *tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Compare, nodes.Call))):
        key: object = None
        if isinstance(node, nodes.Getattr):
            key = node.attr
        elif isinstance(node, nodes.Getitem):
            key = node.arg.value if isinstance(node.arg, nodes.Const) else None
        elif isinstance(node, nodes.Compare):
            asked = isinstance(node.expr, nodes.Const) and any(each.op in ("in", "notin") for each in node.ops)
            key = node.expr.value if asked and isinstance(node.expr, nodes.Const) else None
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.node.attr == "get":
            key = node.args[0].value if node.args and isinstance(node.args[0], nodes.Const) else None
        if isinstance(key, str):
            yield key


def _list_written(node: nodes.Node) -> set[str]:
    """List the attributes that an expression writes. Attributes that it only compares are left out."""
    found = set[str]()
    for child in node.iter_child_nodes():
        if not isinstance(child, nodes.Compare | nodes.Test):
            found |= _list_written(child)
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        found |= set(_list_names(node))
    return found


class ChatTemplate:
    """The chat template of a Hugging Face tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def read_fields(self, tools: Sequence[Mapping[str, Any]] = ()) -> TemplateFields:
        """Return the names that the template reads. A tokenizer may have a second template for tools."""
        return read_template_fields(self.tokenizer.get_chat_template(tools=list(tools) or None))

    def adapt_messages(self, messages: Messages, inputs: TemplateInputs) -> tuple[list[Turn], TemplateInputs, set[str]]:
        """Adapt messages and variables to the template. Also returns the names that it does not read.

        Raises:
            Unprocessable: it does not render something that must not be left out; ``code`` is :data:`UNSUPPORTED`.
        """
        fields = self.read_fields(inputs.tools)
        if inputs.tools and "tools" not in fields.variables | fields.names:
            raise _refuse("`tools`", "leave them out, or take a model whose template knows tools", "tools")
        left_out = {name for name in inputs.arguments if name not in fields.variables}
        for name in inputs.arguments:
            if name in SET_HERE or name in self.tokenizer.special_tokens_map:
                raise Unprocessable(
                    f"`{name}` is set by the server; leave it out", param=f"chat_template_kwargs.{name}"
                )
        kept = {name: value for name, value in inputs.arguments.items() if name not in left_out}
        told = {f"chat_template_kwargs.{name}" for name in left_out}
        turns = []
        for index, message in enumerate(messages):
            turn, missing = _adapt_message(message, fields, f"messages[{index}]")
            turns.append(turn)
            told |= missing
        return turns, TemplateInputs(list(inputs.tools), kept), told

    def write_messages(self, turns: Sequence[Turn], opening: Opening, inputs: TemplateInputs = NO_INPUTS) -> str:
        """Render adapted messages by the template. A last message that is to be continued ends with its content.

        Raises:
            Unprocessable: the template refuses them, or changes the content that is to be continued.
        """
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                list(turns),
                tools=list(inputs.tools) or None,
                tokenize=False,
                add_generation_prompt=opening == "answer",
                continue_final_message=opening == "last message",
                **{"strftime_now": TODAY.strftime, **inputs.arguments},
            )
        except Exception as error:  # jinja raises whatever the template says
            raise Unprocessable(f"the chat template refuses these messages: {error}", param="messages") from error
        return rendered


def _adapt_message(message: Mapping[str, Any], fields: TemplateFields, place: str) -> tuple[Turn, set[str]]:
    """Adapt one message to the template. Also returns the names of the fields left out."""
    turn, left_out = dict(message), set[str]()
    if turn["role"] == "tool" and not (fields.writes_roles or "tool" in fields.texts):
        raise _refuse("the role `tool`", "leave out what tools answered, or take another model", f"{place}.role")
    if calls := turn.get("tool_calls"):
        if "tool_calls" not in fields.names:
            raise _refuse("`tool_calls`", "write the call into `content`, or take another model", f"{place}.tool_calls")
        turn["tool_calls"] = [_parse_call(call) for call in calls]
    if turn.get("content") is None and not (calls and fields.asks_for_null):
        turn["content"] = ""
    thoughts = turn.pop("reasoning_content", None)
    if thoughts:
        known = next((name for name in THOUGHTS if name in fields.names), None)
        if known is None:
            left_out.add("reasoning_content")
        else:
            turn[known] = thoughts
    return turn, left_out


def _parse_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a call's arguments to an object, which all templates accept. Other text stays a text."""
    function = dict(call["function"])
    if isinstance(function["arguments"], str):
        parsed = parse_arguments(function["arguments"])
        function["arguments"] = function["arguments"] if parsed is None else parsed
    return {**call, "function": function}


def _refuse(what: str, advice: str, param: str) -> Unprocessable:
    return Unprocessable(f"the chat template does not render {what}: {advice}", param=param, code=UNSUPPORTED)
