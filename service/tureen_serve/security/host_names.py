"""The names by which a server may be called, so that a web page cannot reach it under a name of its own.

The page's author lets a name, under which the page was loaded, point to 127.0.0.1 (DNS rebinding). The browser then
takes the server for the page's own origin and hands out all replies. It still sends that name in ``Host``.
"""

import ipaddress
import re
from collections.abc import Collection

from tureen.errors import Forbidden

ALL = "*"
KEPT = 256  # names that are not looked at again
NAME = re.compile(r"(\[(?P<inner>[^\]]*)\]|(?P<plain>[^:\[]*))(:[0-9]*)?")


class HostNames:
    """The names that a request's ``Host`` may have.

    Addresses, names without a dot and names below ``localhost`` are always among them: nobody can let these point
    elsewhere.

    Args:
        names: more names; ``*`` for all.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = {each.lower() for each in names}
        self._passed: set[bytes] = set()

    def check(self, host: bytes) -> None:
        """Check the header ``Host``; it may be empty, as only callers other than browsers send it.

        Raises:
            Forbidden: the name is not among them.
        """
        if host in self._passed:
            return
        name = _read_name(host.decode("latin-1"))
        if ALL in self._names or name in self._names or _is_own(name):
            if len(self._passed) < KEPT:
                self._passed.add(host)
            return
        raise Forbidden(
            f"this server may not be called by the name {name!r}: use its address, or name it in `access.hosts`",
            code="foreign_host",
        )


def _read_name(host: str) -> str:
    """Return the name without the port, in small letters."""
    found = NAME.fullmatch(host)
    return (host if found is None else found["inner"] or found["plain"] or "").lower().removesuffix(".")


def _is_own(name: str) -> bool:
    if "." not in name and ":" not in name:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.endswith(".localhost")
    return True
