"""Big inputs in several requests, and their replies as one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from tureen.errors import Conflict, InvalidRequest, ServerFault, Unprocessable
from tureen.http_requests import build_body, check_fields, encode_json
from tureen.item_positions import find_item_index, shift_index
from tureen.wire import (
    MAX_ITEMS,
    ErrorDetail,
    ItemScore,
    Label,
    PreferencesReply,
    RankingLabel,
    Request,
    ScoreItem,
    ScoreReply,
    TrlLabel,
    Usage,
)

Item = TypeVar("Item")
R = TypeVar("R", ScoreReply, PreferencesReply)
Row = ItemScore | Label | TrlLabel | RankingLabel

LABELS: dict[str, type[Label | TrlLabel | RankingLabel]] = {"full": Label, "trl": TrlLabel, "ranking": RankingLabel}


class AnyItems(Request):
    """Items of any number and form."""

    items: Annotated[list[Any], Field(min_length=1)]


class CheckedItems(AnyItems):
    """Items of any number."""

    items: Annotated[list[ScoreItem], Field(min_length=1)]


@dataclass(frozen=True)
class Chunks:
    """How much goes into one request.

    Attributes:
        items: the most items.
        size: about the most bytes; an item larger than that goes alone.
    """

    items: int = 256
    size: int = 4 * 2**20

    def __post_init__(self) -> None:
        if not 1 <= self.items <= MAX_ITEMS or self.size < 1:
            raise InvalidRequest(f"a request takes 1 to {MAX_ITEMS} items of 1 byte or more", param="chunks")

    def split(self, items: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
        """The items in order, in runs that fit, each with the index of its first."""
        start, size = 0, 0
        for index, item in enumerate(items):
            more = len(encode_json(item))
            if index > start and (index - start == self.items or size + more > self.size):
                yield start, items[start:index]
                start, size = index, 0
            size += more
        yield start, items[start:]


def check_items(items: object, options: Mapping[str, object]) -> list[Any]:
    """The items of all requests, checked before the first is sent, unless bad ones are to be spared.

    Raises:
        Unprocessable: there are none, or one is not to be spared and cannot be used.
    """
    return check_fields(AnyItems if _spares(options) else CheckedItems, {"items": items}).items


def build_chunk(kind: type[BaseModel], fields: Mapping[str, object]) -> bytes:
    """The body of one request. Bad items that are to be spared go out as they are, for the server to name.

    Raises:
        Unprocessable: an option cannot be used.
    """
    try:
        return build_body(kind, fields)
    except Unprocessable as error:
        if _spares(fields) and find_item_index(error.param) is not None:
            return encode_json(fields)
        raise


def _spares(options: Mapping[str, object]) -> bool:
    return options.get("on_error") == "item"


def merge_replies(replies: Sequence[R]) -> R:
    """One reply from the replies to :meth:`Chunks.split`'s runs, in their order: rows renumbered, usage summed.

    Raises:
        Conflict: another model answered a later run.
    """
    first = replies[0]
    rows: list[Row] = []
    for reply in replies:
        if reply.fingerprint != first.fingerprint:
            raise Conflict("the model changed between two requests of one call: call again")
        rows += [shift_row(row, len(rows)) for row in reply.data]
    return first.model_copy(update={"data": rows, "usage": _total([reply.usage for reply in replies])})


def check_rows(reply: R, count: int) -> R:
    """``reply`` if it holds one row for each of ``count`` items, in order.

    Raises:
        ServerFault: rows are missing, doubled or out of order.
    """
    if [row.index for row in reply.data] != list(range(count)):
        raise ServerFault(f"the answer does not hold the {count} items in order", code="unreadable_reply")
    return reply


def set_row_types(reply: PreferencesReply, form: str) -> PreferencesReply:
    """The reply with its rows typed by the format that was asked for, where their fields leave it open."""
    kind = LABELS[form]
    rows = [kind.model_validate(row.model_dump(exclude_unset=True)) for row in reply.data]
    return reply.model_copy(update={"data": rows})


def shift_row(row: Row, offset: int) -> Row:
    """A row as if ``offset`` items had stood before its request's first."""
    update: dict[str, object] = {"index": row.index + offset, "error": _detail(row.error, offset)}
    if isinstance(row, ItemScore | Label):
        update["candidates"] = [
            each.model_copy(update={"error": _detail(each.error, offset)}) for each in row.candidates
        ]
    return row.model_copy(update=update)


def _detail(error: ErrorDetail | None, offset: int) -> ErrorDetail | None:
    return error and error.model_copy(update={"param": shift_index(error.param, offset)})


def _total(usages: Sequence[Usage]) -> Usage:
    total: Counter[str] = Counter()
    for usage in usages:
        total.update({name: value for name, value in usage if isinstance(value, int)})
    return Usage(**total)
