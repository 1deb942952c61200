"""The columns of one record: renamed, unpacked from JSON text, and each marked once a reader has used it.

A column that is null or NaN counts as absent: tables (Parquet, pandas, Hugging Face datasets) fill with it what a
record does not have.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tureen.records.answer_keys import JOINT, rename_keys
from tureen.records.column_names import HISTORIES, SIDES, SYSTEMS, TEXT_COLUMNS, find_sides, fold_names
from tureen.records.schema import BadRecord
from tureen.records.spelled_messages import decode_text, parse_messages

# columns that hold a list or an object; a table of text holds them as JSON
STRUCTURES = (
    *("score", "scores", "responses", "answers", "completions", "candidates", "labels", "info", "summaries", "summary"),
    *("tools", "attributes", "chat_template_kwargs", "documents", "images", "meta", "fields", "data", "annotations"),
    *("generations", "ranks", "ratings", "rewards", "context", "videos", "audios", *HISTORIES),
)
REQUEST = re.compile(r"""\s*\{\s*["']messages["']\s*:""")  # of OpenAI's preference format, in `input`
# columns of a table of text that stay text even where a cell reads as a number
TEXTS = re.compile(
    r"prompt|chosen|rejected|instruction|input|output|question|query|response|completion"
    r"|(response|answer|output|completion|human_ref|summary|candidate)_?[a-zA-Z0-9]"
    rf"|id|text|{'|'.join((*SYSTEMS, *HISTORIES, *SIDES['chosen'], *SIDES['rejected']))}"
)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
NOTHING = ("none", "null", "nan", "n/a", "<noinput>", "noinput")
ARENA = ("prompt", "response_a", "response_b")  # in Chatbot Arena's tables each is a JSON list, a text for each turn


class Cells(dict[str, Any]):
    """A record of a table of text, as CSV: all its values are strings, and an empty one is absent."""


class Columns(Mapping[str, Any]):
    """A record's columns by name. Taking a value marks the column as used; ``in`` and :meth:`peek` do not.

    Args:
        values: the columns that are there.
        origins: for a column that stands under another name here, its name in the file.

    Attributes:
        repeated: the columns with the same content as another column.
        unused_keys: the keys of listed answers, and the fields of an export's object, that no reader took, as
            ``completions[].model`` and ``fields.note``.
    """

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> None:
        self._values = dict(values)
        self._origins = dict(origins or {})
        self._used: set[str] = set()
        self._rendered: set[str] = set()
        self.repeated: set[str] = set()
        self.unused_keys: list[str] = []

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._used.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def peek(self, name: str) -> Any:
        """Return the value of a column, or None. The column does not count as used."""
        return self._values.get(name)

    def render(self, name: str) -> Any:
        """Take the value of a column that becomes part of the text, beside the form's own columns."""
        self._rendered.add(name)
        return self[name]

    def put(self, name: str, value: Any) -> None:
        """Set the value of a column."""
        self._values[name] = value

    def drop(self, name: str) -> None:
        """Remove an empty column."""
        del self._values[name]

    def leave_key(self, name: str, key: str) -> None:
        """Note that no reader takes a key of the objects that a column lists."""
        self.unused_keys.append(f"{self.describe_name(name)}{JOINT}{key}")

    def leave_field(self, name: str, field: str) -> None:
        """Note that no reader takes a field of the object in a column."""
        self.unused_keys.append(f"{self.describe_name(name)}.{field}")

    def describe_name(self, name: str) -> str:
        """Return the column's name in the file."""
        return self._origins.get(name, name)

    @property
    def rendered(self) -> list[str]:
        """The columns that became part of the text, by their names in the file."""
        return [self.describe_name(name) for name in self._values if name in self._rendered]

    @property
    def unused(self) -> dict[str, Any]:
        """The columns that no reader took."""
        return {name: value for name, value in self._values.items() if name not in self._used}


def unpack_columns(item: Mapping[str, Any], renamed: Mapping[str, str]) -> Columns:
    """Rename a record's columns to the names of the forms, and parse the values that are JSON text.

    Args:
        item: the record.
        renamed: name in the file → name that the form knows; an empty name leaves the column out. ``completions[].x``
            names a key of listed answers.

    Raises:
        BadRecord: a new name is taken already, or a text that spells messages cannot be parsed.
    """
    given = rename_columns(item, renamed)
    folded = fold_names(given)
    given = {folded.get(name, name): value for name, value in given.items()}
    origins = {new: old for old, new in (folded | dict(renamed)).items() if new and old in item}
    if isinstance(item, Cells):
        given = {name: _cell(name, value) for name, value in given.items()}
    fields = {name: _parsed(name, value) for name, value in given.items() if not says_nothing(name, value)}
    if isinstance(fields.get("input"), dict) and isinstance(fields["input"].get("messages"), list):
        request = fields.pop("input")  # OpenAI's preference format
        fields = {**{name: value for name, value in request.items() if not is_absent(value)}, **fields}
    if "kto_tag" in fields and "label" not in fields:  # LlamaFactory's name
        fields["label"], origins["label"] = fields.pop("kto_tag"), "kto_tag"
    if all(_is_text_list(fields.get(name)) for name in ARENA):
        fields = {**fields, **_interleave([json.loads(fields[name]) for name in ARENA])}
    if sides := find_sides(fields):
        better, worse = sides
        origins |= {"chosen": origins.get(better, better), "rejected": origins.get(worse, worse)}
        fields["chosen"], fields["rejected"] = fields.pop(better), fields.pop(worse)
        if (better, worse) == ("messages", "rejected_response"):
            fields |= _split_messages(fields["chosen"])
    unpacked = {name: _parsed(name, value) for name, value in fields.items() if value is not None}
    return Columns({name: rename_keys(origins.get(name, name), unpacked[name], renamed) for name in unpacked}, origins)


def _split_messages(value: object) -> dict[str, Any]:
    """Split a conversation whose last message is the better answer (ms-swift)."""
    found = parse_messages(value, "messages") if isinstance(value, str) else value
    return {"prompt": found[:-1], "chosen": found[-1:]} if isinstance(found, list) and len(found) > 1 else {}


def is_absent(value: object) -> bool:
    """Whether a value stands for none: null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def says_nothing(name: str, value: object) -> bool:
    """Whether a value is absent, or a word for nothing in a column beside the prompt, as ``<noinput>``."""
    return is_absent(value) or (name in TEXT_COLUMNS and isinstance(value, str) and value.strip().lower() in NOTHING)


def is_empty(value: object) -> bool:
    """Whether a value is absent, blank, or without elements."""
    return is_absent(value) or (isinstance(value, str) and not value.strip()) or value in ([], {}, ())


def _is_text_list(value: object) -> bool:
    found = decode_text(value) if isinstance(value, str) and value[:1] == "[" else None
    return isinstance(found, list) and bool(found) and all(isinstance(each, str) for each in found)


def _interleave(lists: list[list[str]]) -> dict[str, Any]:
    """Join requests with the answers of two models to whole conversations.

    Raises:
        BadRecord: the lists differ in length.
    """
    asked, *answered = lists
    if any(len(answers) != len(asked) for answers in answered):
        raise BadRecord("lengths differ", f"`prompt` has {len(asked)} turns, the answers {[len(a) for a in answered]}")
    roles = ("user", "assistant")
    talks = [
        [
            {"role": role, "content": text}
            for turn in zip(asked, answers, strict=True)
            for role, text in zip(roles, turn, strict=True)
        ]
        for answers in answered
    ]
    return {"prompt": None, "response_a": talks[0], "response_b": talks[1]}


def rename_columns(item: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Rename columns. An empty new name leaves a column out.

    Raises:
        BadRecord: a new name is taken already.
    """
    given = {name: value for name, value in item.items() if name not in renamed}
    for old, new in renamed.items():
        if not new or is_absent(item.get(old)):
            continue
        if not is_absent(given.get(new)):
            raise BadRecord("repeated key", f"`{old}` is renamed `{new}`, and there is a column `{new}` already")
        given[new] = item[old]
    return given


def _cell(name: str, text: Any) -> Any:
    """Read a cell. An empty cell is absent. Outside columns of text, numbers and booleans are parsed."""
    if not isinstance(text, str) or not text.strip():
        return None
    if TEXTS.fullmatch(name):
        return text
    if NUMBER.fullmatch(text.strip()):
        number = float(text)
        return int(number) if number.is_integer() and "." not in text and "e" not in text.lower() else number
    return {"true": True, "false": False, "nan": None, "null": None}.get(text.strip().lower(), text)


def _parsed(name: str, value: Any) -> Any:
    """Parse a text: messages in any column; lists and objects in the columns of :data:`STRUCTURES`."""
    if not isinstance(value, str):
        return value
    if (name in STRUCTURES and value.lstrip()[:1] in ("[", "{")) or (name == "input" and REQUEST.match(value)):
        found = decode_text(value)
        return parse_messages(value, name) if found is None else found
    return parse_messages(value, name)
