"""Ratings among a record's fields: of one answer by several attributes, or of both answers of a pair."""

from tureen.records.columns import Columns
from tureen.records.fields import check_type, read_score
from tureen.records.pair_scores import is_pair_score
from tureen.records.schema import UNLABELLED

RATING_FIELDS = ("attributes", "labels")
SIDES = ("chosen", "rejected")


def read_ratings(columns: Columns) -> dict[str, tuple[float, ...]]:
    """Read the ratings of one answer: the numbers in ``attributes`` or ``labels``, else all columns of numbers.

    Columns that number or date the record are left out.

    Nested ratings may be null. A null column is absent, as everywhere. True and false are 1 and 0.

    Raises:
        BadRecord: a nested rating is neither a number nor null.
    """
    nested = next((name for name in RATING_FIELDS if name in columns), None)
    if nested is None:
        numbers = [name for name in columns if isinstance(columns.peek(name), int | float)]
        return {name: (float(columns[name]),) for name in numbers if not _numbers_record(name)}
    rated = check_type(columns[nested], dict, nested)
    return {
        name: (float(value) if isinstance(value, bool) else read_score(value, f"{nested}.{name}"),)
        for name, value in rated.items()
    }


def read_pair_ratings(columns: Columns) -> dict[str, tuple[float, ...]]:
    """Read the ratings of a pair: as :func:`read_listed_ratings`, else from ``chosen_<name>`` and ``rejected_<name>``.

    One of the two columns may be missing. The pair's own scores are no ratings.
    """
    if both := read_listed_ratings(columns, len(SIDES)):
        return both
    names = [name.removeprefix(f"{side}_") for side in SIDES for name in columns if _is_rating(name, side)]
    found = {}
    for name in dict.fromkeys(names):
        values = [columns.peek(f"{side}_{name}") for side in SIDES]
        if all(value is None or isinstance(value, int | float) for value in values):
            found[name] = tuple(UNLABELLED if value is None else float(value) for value in values)
    return found


def read_listed_ratings(columns: Columns, count: int) -> dict[str, tuple[float, ...]]:
    """Read the ratings of ``count`` answers from ``attributes``: a list for each name, as this package writes them.

    Returns an empty dict if the column is missing or has another shape.
    """
    given = columns.peek("attributes")
    if not isinstance(given, dict) or not all(isinstance(each, list) and len(each) == count for each in given.values()):
        return {}
    return {
        name: tuple(read_score(value, f"attributes.{name}[{index}]") for index, value in enumerate(values))
        for name, values in columns["attributes"].items()
    }


def _is_rating(name: str, side: str) -> bool:
    return name.startswith(f"{side}_") and not is_pair_score(name)


def _numbers_record(name: str) -> bool:
    """Whether a column's name says that it numbers or dates the record."""
    return name in ("id", "uid", "idx", "index", "timestamp") or name.endswith(("_id", "_idx", "_index"))
