"""A mix as text, ``helpful=0.7+harmless=0.3``: in a model's name, in the environment, on a command line."""

import math
import re
from collections.abc import Mapping

from tureen.errors import Unprocessable

ROUNDING = 0.0005
_PLUS = r"(?<!=)(?:(?<![0-9.][eE])\+|\+(?![0-9]))"  # not that of a number: =+1, 1e+2
_SPACE = r"(?<=[^\s=])\s+(?=[^\s=])"  # what a + in a URL's query becomes; not white space around a sign
_SEPARATOR = re.compile(rf"\s*(?:[,;]|{_PLUS})\s*|{_SPACE}")


def split_mix(text: str) -> list[str]:
    """Split a mix, or a list of names, at ``+``, ``;`` and ``,``.

    ``+`` is the better separator, since some clients cut a model's name at the comma. White space separates too.
    """
    return _SEPARATOR.split(text.strip())


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
        cut = "If some are missing, a client has cut the text at a comma; write `+` between the weights"
        raise Unprocessable(f"{message}. {cut}, as a=0.7+b=0.3", param=field)
