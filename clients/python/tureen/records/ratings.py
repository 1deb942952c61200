"""Ratings among a record's fields: of one answer by several attributes, or of both answers of a pair."""

from tureen.records.fields import Fields, check_type, read_score
from tureen.records.schema import UNLABELLED

RATING_FIELDS = ("attributes", "labels")
SIDES = ("chosen", "rejected")


def read_ratings(fields: Fields) -> dict[str, tuple[float, ...]]:
    """What one answer is rated by: numbers in ``attributes`` or ``labels``, else every column that holds a number.

    Nested ratings may be null. A null column is absent, as everywhere. True and false are 1 and 0.

    Raises:
        BadRecord: a nested rating is neither a number nor null.
    """
    nested = next((name for name in RATING_FIELDS if name in fields), None)
    if nested is None:
        return {name: (float(value),) for name, value in fields.items() if isinstance(value, int | float)}
    rated = check_type(fields[nested], dict, nested)
    return {
        name: (float(value) if isinstance(value, bool) else read_score(value, f"{nested}.{name}"),)
        for name, value in rated.items()
    }


def read_pair_ratings(fields: Fields) -> dict[str, tuple[float, ...]]:
    """Read the ratings of a pair: as :func:`read_listed_ratings`, else from ``chosen_<name>`` and ``rejected_<name>``.

    One of the two columns may be missing. ``chosen_score`` and ``rejected_score`` are the pair's scores, no ratings.
    """
    if both := read_listed_ratings(fields, len(SIDES)):
        return both
    names = [name.removeprefix(f"{side}_") for side in SIDES for name in fields if name.startswith(f"{side}_")]
    found = {}
    for name in dict.fromkeys(names):
        if name == "score":
            continue
        values = [fields.get(f"{side}_{name}") for side in SIDES]
        if all(value is None or isinstance(value, int | float) for value in values):
            found[name] = tuple(UNLABELLED if value is None else float(value) for value in values)
    return found


def read_listed_ratings(fields: Fields, count: int) -> dict[str, tuple[float, ...]]:
    """What so many answers are rated by, as the writers of this package leave it: ``attributes``, a list a name.

    Empty where that field is not there or something else.
    """
    given = fields.get("attributes")
    if not isinstance(given, dict) or not all(isinstance(each, list) and len(each) == count for each in given.values()):
        return {}
    return {
        name: tuple(read_score(value, f"attributes.{name}[{index}]") for index, value in enumerate(values))
        for name, values in given.items()
    }
