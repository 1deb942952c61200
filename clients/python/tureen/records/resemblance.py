"""The error for a record of no known form: the form that it most resembles, and the missing columns."""

import json
from collections.abc import Mapping
from typing import Any

from tureen.records.fields import Fields

SHOWN = 200


def describe_unknown(fields: Fields, forms: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe a record of no known form: the nearest form with the missing columns, the record, and all forms.

    Args:
        fields: the record.
        forms: name → its required columns.
    """
    told = f"columns {', '.join(fields) or '(none)'} are none of the known forms"
    nearest = max(forms, key=lambda name: _likeness(fields, forms[name]))
    if _likeness(fields, forms[nearest]) > 0:
        missing = " and ".join(f"`{name}`" for name in forms[nearest] if name not in fields)
        column = "OLD=NEW" if " and " in missing else f"OLD={missing.strip('`')}"
        told += f"; it is most like {nearest}, which needs {missing}: rename with --map {column}, or choose a --form"
    else:
        told += "; rename columns with --map OLD=NEW, or choose a --form"
    record = json.dumps(fields, ensure_ascii=False, default=str)
    told += f"; the record is {record[:SHOWN]}{'…' if len(record) > SHOWN else ''}"
    known = "; ".join(f"{name}: {', '.join(required)}" for name, required in forms.items() if required)
    return f"{told} ({known})"


def _likeness(fields: Fields, required: Mapping[str, Any]) -> float:
    """Compute the share of the required columns that the record has. The number of columns breaks ties."""
    there = sum(name in fields for name in required)
    return there / len(required) + there / 100 if required else 0.0
