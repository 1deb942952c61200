"""Preferences ``{objective: weight}``: checked, normalised, and written in one canonical form. Pure.

Every route that takes weights (scores, labels, soups, candidates) calls :func:`normalise_weights`. So two requests with
the same meaning have the same canonical text, digest and gate.
"""

import hashlib
import math
import re
from collections.abc import Collection, Mapping

from tureen.errors import InvalidRequest, Unprocessable
from tureen.mixes import Normalize, split_mix

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DECIMALS = 6
LARGEST: dict[Normalize, float] = {"simplex": 1e6, "none": 16.0}


def check_name(name: str, field: str = "name") -> str:
    """Check the name of an objective, expert or family, and return it.

    Raises:
        Unprocessable: the name is empty or too long, or has a character outside ``[A-Za-z0-9_.-]``.
    """
    if not NAME.fullmatch(name):
        raise Unprocessable(f"{name!r} is not a name: use 1 to 64 of letters, digits, '_', '.', '-'", param=field)
    return name


def normalise_weights(
    weights: Mapping[str, float],
    known: Collection[str],
    normalize: Normalize = "simplex",
    field: str = "preferences",
    remedy: str = "use normalize: none to subtract",
) -> dict[str, float]:
    """Normalise weights: sort them by name, round them to 6 decimals, and leave out zeros.

    Example::

        normalise_weights({"harmless": 1, "helpful": 3}, known={"harmless", "helpful"})
        # {"harmless": 0.25, "helpful": 0.75}

    Args:
        weights: as the caller gave them; an objective that is left out has weight 0.
        known: the objectives that can be weighed.
        normalize: ``simplex`` scales non-negative weights to sum to 1, and refuses weights that are all zero.
            ``none`` keeps the weights, which may be negative; all zero means the bare base. Weights whose sum is 1
            up to rounding are not scaled again, so a client may send back the weights of a reply and get the same
            soup.
        field: the path of the weights in the request, for errors.
        remedy: the advice in the error for a negative weight.

    Raises:
        Unprocessable: an objective is unknown; a weight is not finite or too large; or, on the simplex, a weight is
            negative or all are zero.
    """
    if not weights:
        raise Unprocessable(f"give at least one weight; known objectives: {_listed(known)}", param=field)
    for name, weight in weights.items():
        _check(name, weight, known, normalize, f"{field}.{name}")
        if normalize == "simplex" and weight < 0:
            raise Unprocessable(f"the weight of {name!r} is negative: {remedy}", param=f"{field}.{name}")
    scale = math.fsum(weights.values()) if normalize == "simplex" else 1.0
    if normalize == "simplex" and scale < 10**-DECIMALS:
        raise Unprocessable("all weights are zero: give one a positive weight", param=field)
    if abs(scale - 1.0) < len(known) * 10**-DECIMALS:
        scale = 1.0
    rounded = {name: round(weights[name] / scale, DECIMALS) + 0.0 for name in sorted(weights)}
    return {name: weight for name, weight in rounded.items() if weight}


def normalise_reward_weights(
    weights: Mapping[str, float],
    known: Collection[str],
    normalize: Normalize = "simplex",
    field: str = "preferences",
    remedy: str = 'send `normalize: "none"` to subtract a reward',
) -> dict[str, float]:
    """Normalise the weights of a sum of rewards, as :func:`normalise_weights` does.

    Rewards are summed on their calibrated scale, so each weight may be any number under ``none``. But a sum of nothing
    ranks no answers: there too one weight must not be 0.

    Raises:
        Unprocessable: as :func:`normalise_weights`, or all weights are zero.
    """
    found = normalise_weights(weights, known, normalize, field, remedy)
    if not found:
        raise Unprocessable("all weights are zero: give one another weight", param=field)
    return found


def _check(name: str, weight: float, known: Collection[str], normalize: Normalize, field: str) -> None:
    if name not in known:
        raise Unprocessable(
            f"unknown objective {name!r}; known: {_listed(known)}", param=field, code="unknown_objective"
        )
    if not math.isfinite(weight):
        raise Unprocessable(f"the weight of {name!r} is {weight}, not a finite number", param=field)
    if abs(weight) > LARGEST[normalize]:
        raise Unprocessable(f"the weight of {name!r} is beyond ±{LARGEST[normalize]:g}", param=field)


def _listed(known: Collection[str]) -> str:
    return ", ".join(sorted(known)) or "none"


def format_weights(weights: Mapping[str, float]) -> str:
    """Write normalised weights as text: ``academy=0.6,entertainment=0.4``. The base is the empty string."""
    return ",".join(f"{name}={_decimal(weights[name])}" for name in sorted(weights) if weights[name])


def _decimal(weight: float) -> str:
    return f"{weight:.{DECIMALS}f}".rstrip("0").rstrip(".")


def digest_soup(weights: Mapping[str, float], semantics: str = "delta") -> str:
    """Hash canonical weights and semantics to the 12 hex digits that name a soup."""
    return hashlib.sha256(f"{semantics}:{format_weights(weights)}".encode()).hexdigest()[:12]


def parse_model(model: str) -> tuple[str, dict[str, float] | None]:
    """Split ``family:academy=0.6+entertainment=0.4`` into the family's name and its weights.

    ``,`` and ``;`` separate weights too.

    Without a colon, or without ``=`` after it, the whole text is a name and the weights are None.

    Raises:
        InvalidRequest: a weight is missing or not a number, or an objective is given twice.
    """
    family, colon, suffix = model.partition(":")
    if not colon or "=" not in suffix:
        return model, None
    return family, parse_weights(suffix, "model")


def parse_weights(text: str, field: str) -> dict[str, float]:
    """Read ``academy=0.6+entertainment=0.4``. ``,`` and ``;`` separate weights too.

    Args:
        field: where the text stands, for the error.

    Raises:
        InvalidRequest: a weight is missing or not a number, or an objective is given twice.
    """
    weights: dict[str, float] = {}
    for part in split_mix(text):
        name, _, number = part.partition("=")
        name = name.strip()
        try:
            weight = float(number)
        except ValueError:
            message = f"cannot read {part!r}: write the weights as name=weight+name=weight"
            raise InvalidRequest(message, param=field) from None
        if name in weights:
            raise InvalidRequest(f"{name!r} is given twice; give it once", param=field)
        weights[name] = weight
    return weights
