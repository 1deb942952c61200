"""The keys of the objects in a list of answers, or in an export. A report and ``--map`` call them as
``completions[].model`` and ``fields.note``.
"""

import re
from collections.abc import Mapping
from typing import Any

from tureen.records.column_names import TEXT_COLUMNS
from tureen.records.schema import BadRecord
from tureen.records.spelled_messages import decode_text

JOINT = "[]."
# UltraFeedback: the system prompt by which this answer was generated; the answers of one record have different ones
GENERATED_BY = "custom_system_prompt"
CALLS_AND_THOUGHTS = {"tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"}
TEXT_KEYS = {*TEXT_COLUMNS, *CALLS_AND_THOUGHTS} - {GENERATED_BY}
# keys that say where an answer comes from, or why it has its score
NOTES = {
    *("principle", "critique", "rationale", "reasoning_for_score", "feedback", "policy", "answer_id", "response_id"),
    *("author", "author_id", "author_profile", "user", "user_id", "selected", "is_selected", "score", "rating", "rank"),
    *("overall_score", "fine-grained_score", "reward", "pm_score", "generator", "temperature", "seed", "finish_reason"),
}


def find_keys(item: Mapping[str, Any]) -> set[str]:
    """Find the keys of all objects in a record, and in its lists, with the names of their columns."""
    found = set()
    for name, value in item.items():
        found |= {f"{name}.{key}" for key in value} if isinstance(value, Mapping) else set()
        listed = decode_text(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value
        if isinstance(listed, list):
            found |= {f"{name}{JOINT}{key}" for each in listed if isinstance(each, Mapping) for key in each}
    return found


def rename_keys(column: str, value: Any, renamed: Mapping[str, str]) -> Any:
    """Rename the keys of an object, or of the objects in a list.

    Args:
        column: the column by its name in the file.
        value: the column's value. A value that is neither stays as it is.
        renamed: ``column[].key``, or ``column.key`` of an object → the key that the form knows; an empty one leaves
            the key out.

    Raises:
        BadRecord: an object has the new key already.
    """
    head = f"{column}." if isinstance(value, Mapping) else f"{column}{JOINT}"
    keys = {name.removeprefix(head): new for name, new in renamed.items() if name.startswith(head)}
    if keys and isinstance(value, Mapping):
        return _rename(value, keys, column)
    if not keys or not isinstance(value, list):
        return value
    return [_rename(each, keys, f"{column}[{index}]") for index, each in enumerate(value)]


def changes_text(name: str) -> bool:
    """Whether a key, as ``completions[].tools`` or ``fields.tools``, changes the text that a model reads."""
    return split_key(name) in TEXT_KEYS


def split_key(name: str) -> str:
    """Return the key of ``completions[].key`` or ``fields.key``."""
    return re.split(r"(?:\[\])?\.", name, maxsplit=1)[-1]


def _rename(value: Any, keys: Mapping[str, str], where: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    made = {key: each for key, each in value.items() if key not in keys}
    for old, new in keys.items():
        if new and value.get(old) is not None:
            if made.get(new) is not None:
                raise BadRecord("repeated key", f"`{where}.{old}` is renamed `{new}`, and there is `{new}` already")
            made[new] = value[old]
    return made
