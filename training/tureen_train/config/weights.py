"""Weights on a command line, such as ``a=0.7+b=0.3``."""

from tureen.mixes import split_mix
from tureen.records.schema import BadOption


def parse_weights(text: str, flag: str = "--preferences") -> dict[str, float]:
    """Parse weights such as ``a=0.7+b=0.3``; ``,`` and ``;`` separate too.

    Raises:
        BadOption: a part is not a name with a number, or a name occurs twice.
    """
    weights: dict[str, float] = {}
    for part in split_mix(text):
        name, _, number = (each.strip() for each in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise BadOption(f"{flag}: {part!r} is not a weight: write it as helpful=0.7+harmless=0.3") from None
        if name in weights:
            raise BadOption(f"{flag}: {name!r} has two weights; give one")
        weights[name] = weight
    return weights
