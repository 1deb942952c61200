"""The index of an item in an error's field or message, as ``items[3]``: find it and shift it."""

import re

from tureen.errors import TureenError

_ITEM = re.compile(r"^items\[(\d+)\]")


def shift_error(error: TureenError, offset: int) -> TureenError:
    """Return the error with ``offset`` added to the item index in its message and field."""
    return type(error)(
        shift_index(error.message, offset) or "",
        param=shift_index(error.param, offset),
        code=error.code,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )


def shift_index(text: str | None, offset: int) -> str | None:
    """Add ``offset`` to the index in a text that starts with ``items[i]``; other texts stay as they are."""
    return text and _ITEM.sub(lambda found: f"items[{int(found[1]) + offset}]", text)


def find_item_index(param: str | None) -> int | None:
    """Return ``i`` for a field that starts with ``items[i]``, else None."""
    found = _ITEM.match(param or "")
    return int(found[1]) if found else None
