"""The server's address, the API key and the preferences from the environment. No other file reads it."""

import os

from tureen.errors import InvalidRequest
from tureen.mixes import Normalize, check_single, split_mix, split_normalize

LOCAL = "http://127.0.0.1:8900"
FIELD = "TUREEN_PREFERENCES"
SCHEMES = ("http://", "https://")


def resolve_base_url(given: str | None = None) -> str:
    """Return the server's address without a trailing slash: the given one, else ``TUREEN_BASE_URL``, else localhost.

    A trailing ``/v1``, which OpenAI's client needs, is removed.

    Raises:
        InvalidRequest: the address does not start with http:// or https://.
    """
    url = (given or os.environ.get("TUREEN_BASE_URL") or LOCAL).rstrip("/").removesuffix("/v1")
    if not url.startswith(SCHEMES):
        raise InvalidRequest(f"{url!r} is not a server address: write it as {LOCAL}", param="base_url")
    return url


def resolve_api_key(given: str | None = None) -> str | None:
    """Return the given key, else ``TUREEN_API_KEY``, else None."""
    return given or os.environ.get("TUREEN_API_KEY") or None


def read_preferences() -> tuple[dict[str, float], Normalize] | None:
    """Return the weights in ``TUREEN_PREFERENCES`` and how they are normalised, or None if it is not set.

    They are written as ``helpful=0.7+harmless=0.3``, or as ``none:helpful=1+verbose=-0.5`` to be used as written.

    Raises:
        InvalidRequest: a weight is malformed or given twice, or the only one may be what was left of a cut.
    """
    text = os.environ.get(FIELD)
    if not text:
        return None
    normalize, mix = split_normalize(text)
    pairs = [_weight(pair) for pair in split_mix(mix)]
    weights = dict(pairs)
    if len(weights) < len(pairs):
        raise InvalidRequest(f"{FIELD}: {text!r} gives a reward two weights; give one", param=FIELD)
    check_single(weights, normalize, f"{FIELD}={text}", FIELD)
    return weights, normalize


def _weight(pair: str) -> tuple[str, float]:
    name, _, number = pair.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        message = f"{FIELD}: {pair!r} is not a weight: write it as helpful=0.7+harmless=0.3"
        raise InvalidRequest(message, param=FIELD) from None
