"""A mix as text, ``helpful=0.7+harmless=0.3``: in a model's name, in the environment, on a command line.

A mix of rewards may begin with ``none:``, for ``normalize: none``: ``none:helpful=1+verbose=-0.5``.
"""

import math
import re
from collections.abc import Mapping
from typing import Literal

from tureen.errors import Unprocessable

Normalize = Literal["simplex", "none"]

ROUNDING = 0.0005
AS_WRITTEN = "none:"
CUT = "If some are missing, a client has cut the text at a comma; write `+` between the weights"
_PLUS = r"(?<!=)(?:(?<![0-9.][eE])\+|\+(?![0-9]))"  # not that of a number: =+1, 1e+2
_SPACE = r"(?<=[^\s=])\s+(?=[^\s=])"  # what a + in a URL's query becomes; not white space around a sign
_SEPARATOR = re.compile(rf"\s*(?:[,;]|{_PLUS})\s*|{_SPACE}")


def split_mix(text: str) -> list[str]:
    """Split a mix, or a list of names, at ``+``, ``;`` and ``,``.

    ``+`` is the better separator, since some clients cut a model's name at the comma. White space separates too.
    """
    return _SEPARATOR.split(text.strip())


def split_normalize(text: str) -> tuple[Normalize, str]:
    """Split a mix of rewards into how its weights are normalised, and the mix without the mark ``none:``."""
    stripped = text.strip()
    if stripped.startswith(AS_WRITTEN):
        return "none", stripped.removeprefix(AS_WRITTEN).strip()
    return "simplex", text


def check_single(weights: Mapping[str, float], normalize: Normalize, text: str, field: str) -> None:
    """Check that the only weight of a mix of rewards was not cut off from others: it is 1, and not used as written.

    Raises:
        Unprocessable: it may have been.
    """
    if len(weights) != 1:
        return
    if normalize == "simplex":
        check_sum(weights, text, field)
        return
    message = f"{text!r} has one weight; after `{AS_WRITTEN}` write two or more, of which one may be 0"
    raise Unprocessable(f"{message}. {CUT}, as {AS_WRITTEN}a=1+b=-0.5", param=field)


def check_sum(weights: Mapping[str, float], text: str, field: str = "model") -> None:
    """Check that the weights of a mix add up to 1. If a client has cut the mix, they do not.

    Weights may be rounded to three decimals.

    Args:
        text: the mix as it was written, for the error.
        field: where it stands, for the error.

    Raises:
        Unprocessable: they do not add up to 1.
    """
    total = math.fsum(weights.values())
    if abs(total - 1) > ROUNDING * len(weights) + 1e-9:
        message = f"the weights in {text!r} add up to {total:g}; write weights that add up to 1"
        raise Unprocessable(f"{message}. {CUT}, as a=0.7+b=0.3", param=field)
