"""The index of an item in an error's field or message, as ``items[3]``: find it and shift it."""

import re

from tureen.errors import TureenError

_ITEM = re.compile(r"^items\[(\d+)\]")


def shift_error(error: TureenError, offset: int) -> TureenError:
    """The error as if ``offset`` items had stood before its request's first."""
    return type(error)(
        shift_index(error.message, offset) or "",
        param=shift_index(error.param, offset),
        code=error.code,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )


def shift_index(text: str | None, offset: int) -> str | None:
    """A field, or a sentence that begins with one, with ``offset`` added to the item's index if it stands in one."""
    return text and _ITEM.sub(lambda found: f"items[{int(found[1]) + offset}]", text)


def find_item_index(param: str | None) -> int | None:
    """The item that a field stands in, if it stands in one."""
    found = _ITEM.match(param or "")
    return int(found[1]) if found else None
