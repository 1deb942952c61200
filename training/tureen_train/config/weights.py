"""Weights on a command line, such as ``a=0.7+b=0.3``."""

from tureen.mixes import Normalize, split_mix
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


def parse_weighing(text: str | None, normalize: Normalize | None) -> tuple[dict[str, float] | None, Normalize]:
    """Parse ``--preferences`` and ``--normalize``: the weights, None without any, and how they are normalised.

    Raises:
        BadOption: as :func:`parse_weights`, or ``--normalize`` stands alone.
    """
    if normalize is not None and not text:
        raise BadOption("--normalize: say which weights with --preferences")
    return parse_weights(text) if text else None, normalize or "simplex"
