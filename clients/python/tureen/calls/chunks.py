"""Split a large input into several requests, and merge their replies into one."""

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
    MAX_TEXTS,
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
    """Any number of items, not validated."""

    items: Annotated[list[Any], Field(min_length=1)]


class CheckedItems(AnyItems):
    """Any number of validated items."""

    items: Annotated[list[ScoreItem], Field(min_length=1)]


@dataclass(frozen=True)
class Chunks:
    """The largest request.

        Client(chunks=Chunks(items=64))

    Attributes:
        items: the most items in one request. It has at most 16,384 candidates and steps too.
        size: the most bytes, approximately; a larger item is sent alone.
    """

    items: int = 256
    size: int = 4 * 2**20

    def __post_init__(self) -> None:
        if not 1 <= self.items <= MAX_ITEMS or self.size < 1:
            raise InvalidRequest(f"chunks: give 1 to {MAX_ITEMS} items, and a size of 1 byte or more", param="chunks")

    def split(self, items: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
        """Yield runs of items that fit into one request, in order, each with the index of its first item."""
        start, size, texts = 0, 0, 0
        for index, item in enumerate(items):
            more, read = len(encode_json(item)), _count_texts(item)
            full = index - start == self.items or size + more > self.size or texts + read > MAX_TEXTS
            if index > start and full:
                yield start, items[start:index]
                start, size, texts = index, 0, 0
            size += more
            texts += read
        yield start, items[start:]


def _count_texts(item: object) -> int:
    """Count the candidates or steps of an item, as the server counts them."""
    fields = item if isinstance(item, Mapping) else vars(item) if isinstance(item, BaseModel) else {}
    held = fields.get("candidates") or fields.get("steps")
    return len(held) if isinstance(held, Sequence) and not isinstance(held, str) else 1


def check_items(items: object, options: Mapping[str, object]) -> list[Any]:
    """Return the items as a list, validated before the first request unless ``on_error`` is ``item``.

    Raises:
        Unprocessable: there are no items, or one is invalid and ``on_error`` is ``fail``.
    """
    return check_fields(AnyItems if _spares(options) else CheckedItems, {"items": items}).items


def build_chunk(kind: type[BaseModel], fields: Mapping[str, object]) -> bytes:
    """Return the body of one request. With ``on_error: item`` invalid items are sent too; the server reports them.

    Raises:
        Unprocessable: an option is invalid.
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
    """Merge the replies to the runs of :meth:`Chunks.split`, in order: rows are renumbered and usage is summed.

    Raises:
        Conflict: a later run was answered by another model.
    """
    first = replies[0]
    rows: list[Row] = []
    for reply in replies:
        if reply.fingerprint != first.fingerprint:
            raise Conflict("the model changed between two requests of one call: call again")
        rows += [shift_row(row, len(rows)) for row in reply.data]
    return first.model_copy(update={"data": rows, "usage": _total([reply.usage for reply in replies])})


def check_rows(reply: R, count: int) -> R:
    """Return ``reply`` if it has one row for each of ``count`` items, in order.

    Raises:
        ServerFault: rows are missing, repeated or out of order.
    """
    if [row.index for row in reply.data] != list(range(count)):
        raise ServerFault(f"the reply does not have the {count} items in order", code="unreadable_reply")
    return reply


def set_row_types(reply: PreferencesReply, form: str) -> PreferencesReply:
    """Return the reply with rows of the type of the requested format; the fields alone may be ambiguous."""
    kind = LABELS[form]
    rows = [kind.model_validate(row.model_dump(exclude_unset=True)) for row in reply.data]
    return reply.model_copy(update={"data": rows})


def shift_row(row: Row, offset: int) -> Row:
    """Add ``offset`` to the row's index and to the item index in its errors."""
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
