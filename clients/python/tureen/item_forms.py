"""Rows of files as items of the wire: items as they are, and every public form of preference data."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tureen.errors import TureenError, Unprocessable
from tureen.records.columns import is_absent, rename_columns
from tureen.records.fields import describe_type
from tureen.records.forms import KNOWN, LEFT_OUT, UNKNOWN, parse_record
from tureen.records.schema import BadRecord, Record
from tureen.wire import ScoreItem

FORM = '{"prompt": ..., "candidates": [...]}'
FIELDS = {*ScoreItem.model_fields, "id", "subset", "models"}  # of an item to score or to label
OWN = ("candidates", "steps", "items")  # columns by which a row is an item already
NOT_SENT = "not understood and not sent"
FORMED = ("chosen", "rejected")


@dataclass(frozen=True)
class RowReading:
    """How rows become items.

    Attributes:
        form: a name of :data:`tureen.records.forms.FORMS`; ``auto`` takes items as they are, and looks at the columns
            of other rows.
        renamed: a column's name in the file → the name that the form knows; an empty name leaves the column out.
    """

    form: str = "auto"
    renamed: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """What differs from the default, as JSON."""
        told = {"form": self.form} if self.form != "auto" else {}
        return {**told, "map": dict(self.renamed)} if self.renamed else told


DEFAULT = RowReading()


@dataclass(frozen=True)
class MadeItem:
    """What a row says.

    Attributes:
        item: the item, or the error that stands in its place.
        columns: what was done with the columns that are not the form's own, by name.
    """

    item: dict[str, Any] | TureenError
    columns: Mapping[str, str] = field(default_factory=dict)


def make_item(raw: Any, reading: RowReading = DEFAULT) -> MadeItem:
    """Make an item from a decoded row, or the error for its place.

    Columns that are null are left out. The answers of a record of preference data become candidates, in the file's
    order. Its tools and template arguments are kept; its labels are not sent.
    """
    if isinstance(raw, TureenError):
        return MadeItem(raw)
    if isinstance(raw, BadRecord):
        reason = f"this is {raw.reason}" if raw.reason.startswith("not ") else raw.reason
        return MadeItem(Unprocessable(f"{reason}: {raw.detail}", code="invalid_json"))
    if not isinstance(raw, Mapping):
        return MadeItem(Unprocessable(f"an item is an object, as {FORM}, not {describe_type(raw)}"))
    try:
        row = rename_columns({name: value for name, value in raw.items() if not is_absent(value)}, reading.renamed)
        if reading.form == "auto" and _is_item(row) and (not reading.renamed or row.keys() <= FIELDS):
            return MadeItem(row)
        draft = parse_record(raw, reading.form, reading.renamed)
        record = draft.finish("")[0]
    except BadRecord as error:
        message = f"{error.reason}: {error.detail}"
        if error.reason == "unknown form":
            message = f"this is neither an item, as {FORM}, nor preference data of a known form: {error.detail}"
        return MadeItem(Unprocessable(message, param=error.column or None, code="invalid_record"))
    told = {name: NOT_SENT if treatment == UNKNOWN else treatment for name, treatment in draft.columns.items()}
    return MadeItem(_item_of(record, raw), {name: each for name, each in told.items() if each not in (KNOWN, LEFT_OUT)})


def check_fields(item: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse an item with a column that is not one of the known fields.

    Raises:
        Unprocessable: naming the column.
    """
    for name in item:
        if name not in known:
            advice = f"leave it out with --map {name}=, or rename it with --map {name}=NAME"
            message = f"{name}: is not a field of an item, which has {', '.join(known)}: {advice}"
            raise Unprocessable(message, param=name)


def _is_item(row: Mapping[str, Any]) -> bool:
    """Whether a row has the columns of an item; ``candidates`` of objects with texts are a form of data."""
    if any(name in row for name in FORMED):
        return False
    candidates = row.get("candidates")
    if isinstance(candidates, list) and any(isinstance(each, Mapping) for each in candidates):
        return False
    return any(name in row for name in OWN) or "messages" in row


def _item_of(record: Record, raw: Mapping[str, Any]) -> dict[str, Any] | TureenError:
    if not record.prompt:
        return Unprocessable("the answers continue different conversations, and an item has one prompt", param="prompt")
    own = {name: raw[name] for name in ("id", "subset", "models") if not is_absent(raw.get(name))}
    candidates = [list(answer) for answer in record.answers]
    return {"prompt": list(record.prompt), "candidates": candidates, **record.template_arguments, **own}
