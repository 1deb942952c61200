"""The grammar that a request asks for: OpenAI's ``response_format``, and vLLM's ``structured_outputs``. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from tureen.errors import InvalidRequest, Unprocessable
from tureen_serve.generation.method import Request
from tureen_serve.runtimes.grammar_proof import GrammarSource

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
KINDS = ("json", "json_object", "regex", "choice", "grammar")
SPACES = ("disable_any_whitespace", "whitespace_pattern")
# options of llguidance, in patterns: JSON on one line. Greedy models write white space without end where they may
ONE_LINE: Mapping[str, Any] = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


def check_bound_end(request: Request, tokenizer: Any) -> None:
    """Refuse fields by which a text that is bound to a grammar would end before it satisfies it, or go on after it.

    Special tokens may stop it, since a grammar does not allow them inside a text.

    Raises:
        InvalidRequest: there is such a field.
    """
    shown = request.include_stop_str_in_output and not request.skip_special_tokens
    special = {token for token, each in tokenizer.added_tokens_decoder.items() if each.special}
    special.update(tokenizer.all_special_ids)
    early = [token for token in request.stop_token_ids or () if token not in special]
    problems = {
        "ignore_eos": "it would go on after its grammar's end" if request.ignore_eos else "",
        "stop_token_ids": f"{early[0]} would end it before its grammar does" if early else "",
        "include_stop_str_in_output": "its mark of the end is not in its grammar" if shown else "",
    }
    for param, problem in problems.items():
        if problem:
            message = f"the text is bound to a grammar and {problem}; leave `{param}` out"
            raise InvalidRequest(message, param=param)


def read_grammar(request: Request) -> GrammarSource | None:
    """Find the grammar that a request asks for; None if any text will do.

    Raises:
        InvalidRequest: the request asks for two.
        Unprocessable: a field cannot be used.
    """
    wanted = _read_format(request)
    outputs = request.structured_outputs
    if outputs is None:
        return wanted
    if wanted is not None:
        message = "`response_format` and `structured_outputs` both say what the text must be; send one of them"
        raise InvalidRequest(message, param="structured_outputs")
    return _read_outputs(outputs)


def _read_format(request: Request) -> GrammarSource | None:
    asked = request.response_format
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return make_schema_source(ANY_OBJECT, "response_format")
    param = "response_format.json_schema"
    if asked.json_schema is None:
        raise Unprocessable(f"`{param}` is required with the type `json_schema`", param=param)
    schema = asked.json_schema.get("schema")
    if not isinstance(schema, dict):
        raise Unprocessable(f"`{param}.schema` must be a JSON schema, which is an object", param=f"{param}.schema")
    return make_schema_source(schema, f"{param}.schema")


def _read_outputs(outputs: Mapping[str, Any]) -> GrammarSource:
    given = {name: value for name, value in outputs.items() if value is not None and value is not False}
    strange = sorted(given.keys() - {*KINDS, *SPACES, "disable_fallback"})
    if strange:
        message = f"`structured_outputs.{strange[0]}` is not supported; send one of {', '.join(KINDS)}"
        raise Unprocessable(message, param=f"structured_outputs.{strange[0]}", code="unsupported_parameter")
    kinds = [name for name in KINDS if name in given]
    if len(kinds) != 1:
        message = f"`structured_outputs` has {len(kinds)} of {', '.join(KINDS)}; send exactly one"
        raise InvalidRequest(message, param="structured_outputs")
    kind, value, param = kinds[0], given[kinds[0]], f"structured_outputs.{kinds[0]}"
    if kind in ("json", "json_object"):
        schema = ANY_OBJECT if kind == "json_object" else _parse_schema(value, param)
        return make_schema_source(schema, param, _read_spaces(given, outputs.get("disable_any_whitespace") is False))
    if kind == "choice":
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            raise Unprocessable(f"`{param}` must be a list of one text or more", param=param)
        return GrammarSource("choice", json.dumps(value), param)
    if not isinstance(value, str) or (kind == "grammar" and not value.strip()):
        raise Unprocessable(f"`{param}` must be a text", param=param)
    return GrammarSource("grammar" if kind == "grammar" else "regex", value, param)


def make_schema_source(schema: Mapping[str, Any], param: str, spaces: Mapping[str, Any] = ONE_LINE) -> GrammarSource:
    """Make the source of a JSON schema. ``spaces`` are as :func:`bound_spaces` takes them."""
    return GrammarSource("json", json.dumps(bound_spaces(schema, spaces)), param)


def bound_spaces(schema: Mapping[str, Any], spaces: Mapping[str, Any] = ONE_LINE) -> dict[str, Any]:
    """Say in a JSON schema where white space may stand, if it does not say so itself.

    Args:
        spaces: options of llguidance, which reads them in ``x-guidance``.
    """
    own = schema.get("x-guidance", {})
    if not isinstance(own, dict) or own.keys() & {*ONE_LINE, "whitespace_pattern"}:
        return dict(schema)  # llguidance refuses what is no object
    return {**schema, "x-guidance": {**own, **spaces}}


def _read_spaces(given: Mapping[str, Any], anywhere: bool) -> Mapping[str, Any]:
    if given.get("whitespace_pattern"):
        return {"whitespace_pattern": given["whitespace_pattern"]}
    if given.get("disable_any_whitespace"):
        return {"whitespace_flexible": False}
    return {"whitespace_flexible": True} if anywhere else ONE_LINE


def _parse_schema(value: object, param: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unprocessable(f"`{param}` must be a JSON schema, as an object or as JSON text", param=param) from None
    if not isinstance(value, dict):
        raise Unprocessable(f"`{param}` must be a JSON schema, which is an object", param=param)
    return value
