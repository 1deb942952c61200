"""Where the server is, which key opens it and what is wished of it: the client's only reader of the environment."""

import os

from tureen.errors import InvalidRequest

LOCAL = "http://127.0.0.1:8900"


def resolve_base_url(given: str | None = None) -> str:
    """The server's address without a trailing slash: as given, else ``TUREEN_BASE_URL``, else this machine.

    A trailing ``/v1``, which OpenAI's client wants there, is taken off.

    Raises:
        InvalidRequest: it does not start with http:// or https://.
    """
    url = (given or os.environ.get("TUREEN_BASE_URL") or LOCAL).rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"{url!r} is no address: write it as {LOCAL}", param="base_url")
    return url


def resolve_api_key(given: str | None = None) -> str | None:
    """The key as given, else ``TUREEN_API_KEY``, else none."""
    return given or os.environ.get("TUREEN_API_KEY") or None


def read_preferences() -> dict[str, float] | None:
    """The weights that ``TUREEN_PREFERENCES`` holds, as ``helpful=0.7,harmless=0.3``; None without it.

    Raises:
        InvalidRequest: it cannot be read.
    """
    text = os.environ.get("TUREEN_PREFERENCES")
    return dict(_weight(pair.strip()) for pair in text.split(",")) if text else None


def _weight(pair: str) -> tuple[str, float]:
    name, _, number = pair.partition("=")
    try:
        return name, float(number)
    except ValueError:
        message = f"TUREEN_PREFERENCES: {pair!r} is no weight: write it as helpful=0.7,harmless=0.3"
        raise InvalidRequest(message, param="TUREEN_PREFERENCES") from None
