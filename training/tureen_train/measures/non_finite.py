"""Null for numbers that are not finite, because JSON has no NaN and no infinity. Pure."""

import math
from typing import Any


def replace_non_finite(value: Any) -> Any:
    """Return ``value`` with None in place of each float that is not finite, in nested dictionaries too."""
    if isinstance(value, dict):
        return {key: replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
