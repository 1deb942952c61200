"""What a caller wants: ``{objective: weight}``, checked, normalised, and brought to one canonical form.

Pure. Every route that takes weights (scores, labels, soups, candidates) goes through :func:`normalise_weights`,
so that two requests that mean the same have the same canonical text, digest and gate.
"""

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from typing import Literal

from tureen.errors import InvalidRequest, Unprocessable
from tureen.mixes import split_mix

Normalize = Literal["simplex", "none"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DECIMALS = 6
LARGEST: dict[Normalize, float] = {"simplex": 1e6, "none": 16.0}


def check_name(name: str, field: str = "name") -> str:
    """``name`` if an objective, expert or family may be called so.

    Raises:
        Unprocessable: it is empty, too long, or holds a character outside ``[A-Za-z0-9_.-]``.
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
    """The weights as they will be applied: sorted by name, rounded to 6 decimals, zeros left out.

    Args:
        weights: as the caller stated them; an objective left out weighs 0.
        known: the objectives that can be weighed.
        normalize: ``simplex`` scales non-negative weights to sum to 1; ``none`` takes them as they are,
            negative ones too. All zero is meaningless on the simplex; under ``none`` it is the bare base.
            Weights that sum to 1 but for rounding are not scaled again, so that an answer's weights sent back
            are the same soup.
        field: where the weights stand in the request, for the error.
        remedy: what a caller with a negative weight can do instead, for the error.

    Raises:
        Unprocessable: unknown objective, not finite, too large, negative or all zero on the simplex.
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
    """Normalised weights as text, ``academy=0.6,entertainment=0.4``; the empty string is the base."""
    return ",".join(f"{name}={_decimal(weights[name])}" for name in sorted(weights) if weights[name])


def _decimal(weight: float) -> str:
    return f"{weight:.{DECIMALS}f}".rstrip("0").rstrip(".")


def digest_soup(weights: Mapping[str, float], semantics: str = "delta") -> str:
    """Twelve hex digits that name a soup: equal for equal canonical weights and semantics."""
    return hashlib.sha256(f"{semantics}:{format_weights(weights)}".encode()).hexdigest()[:12]


def parse_model(model: str) -> tuple[str, dict[str, float] | None]:
    """Split ``family:academy=0.6+entertainment=0.4`` into the family and its weights; ``,`` and ``;`` separate too.

    Without a colon, or with one that no ``=`` follows, the whole is a name and the weights are None.

    Raises:
        InvalidRequest: a weight is missing or not a number, or an objective stands twice.
    """
    family, colon, suffix = model.partition(":")
    if not colon or "=" not in suffix:
        return model, None
    weights: dict[str, float] = {}
    for part in split_mix(suffix):
        name, _, number = part.partition("=")
        name = name.strip()
        try:
            weight = float(number)
        except ValueError:
            message = f"cannot read {part!r}: write the suffix as name=weight+name=weight"
            raise InvalidRequest(message, param="model") from None
        if name in weights:
            raise InvalidRequest(f"{name!r} stands twice in the model suffix", param="model")
        weights[name] = weight
    return family, weights
