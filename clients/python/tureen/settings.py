"""Where the server is and which key opens it: the client's only reader of the environment."""

import os

from tureen.errors import InvalidRequest

LOCAL = "http://127.0.0.1:8900"


def base_url(given: str | None = None) -> str:
    """The server's address without a trailing slash: as given, else ``TUREEN_BASE_URL``, else this machine.

    A trailing ``/v1``, which OpenAI's client wants there, is taken off.

    Raises:
        InvalidRequest: it does not start with http:// or https://.
    """
    url = (given or os.environ.get("TUREEN_BASE_URL") or LOCAL).rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"{url!r} is no address: write it as {LOCAL}", param="base_url")
    return url


def api_key(given: str | None = None) -> str | None:
    """The key as given, else ``TUREEN_API_KEY``, else none."""
    return given or os.environ.get("TUREEN_API_KEY") or None
