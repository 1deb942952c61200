"""How a registry gets to know who asks: basic authentication, or the tokens of the Docker registry's protocol.

A reply with 401 says which of them it wants, and for a token where it is made. Name and password are those of the
entry's file, else those that ``docker login`` or ``podman login`` has left; without any, tokens are asked for without.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Generator
from pathlib import Path

import httpx2

from tureen_serve.fetching.entries import FetchEntry, FetchError
from tureen_serve.fetching.http_files import LOOPBACK

DOCKER_HUB = "registry-1.docker.io"
HUB_LOGIN = "https://index.docker.io/v1/"  # what `docker login` calls it


class RegistryAuth(httpx2.Auth):
    """Adds to requests what the registry asks for.

    Args:
        login: name and password, as basic authentication sends them; None for nobody.
    """

    def __init__(self, login: str | None, shown: str) -> None:
        self._login, self._shown = login, shown
        self._header: str | None = None

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send a request, and where it is refused once more with what is wanted."""
        if self._header is not None:
            request.headers["authorization"] = self._header
        reply = yield request
        if reply.status_code != 401:
            return
        scheme, _, rest = reply.headers.get("www-authenticate", "").partition(" ")
        if scheme.lower() == "bearer":
            told = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            granted = yield self._make_token_request(told)
            granted.read()
            self._header = f"Bearer {self._read_token(granted)}"
        elif scheme.lower() == "basic" and self._login is not None and self._header is None:
            self._header = f"Basic {self._login}"
        else:
            return
        request.headers["authorization"] = self._header
        yield request

    def _make_token_request(self, told: dict[str, str]) -> httpx2.Request:
        realm = httpx2.URL(told.get("realm", ""))
        if realm.scheme != "https" and not (realm.scheme == "http" and realm.host in LOOPBACK):
            raise FetchError(f"{self._shown}: the registry sends callers to {str(realm)[:200]!r}, which is not https")
        asked = {name: value for name, value in told.items() if name in ("service", "scope")}
        headers = {} if self._login is None else {"authorization": f"Basic {self._login}"}
        return httpx2.Request("GET", realm.copy_merge_params(asked), headers=headers)

    def _read_token(self, reply: httpx2.Response) -> str:
        try:
            found = reply.json() if reply.status_code == 200 else {}
            token = found.get("token") or found.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            who = "without a login" if self._login is None else "to this login"
            raise FetchError(f"{self._shown}: the registry gives no token {who} ({reply.status_code}); {ADVICE}")
        return token


ADVICE = "run `docker login`, or give token_file with user:password"


def find_login(entry: FetchEntry, host: str) -> str | None:
    """Find name and password for a registry, in base64 as basic authentication sends them; None if there are none.

    Raises:
        FetchError: a file with them cannot be read.
    """
    token = entry.read_token()
    if token is not None:
        if ":" not in token:
            raise FetchError(f"token_file: {entry.token_file} must hold user:password, for the registry {host}")
        return base64.b64encode(token.encode()).decode()
    names = (host, f"https://{host}", *((HUB_LOGIN, "docker.io") if host == DOCKER_HUB else ()))
    for file in _list_login_files():
        try:
            logins = json.loads(file.read_bytes()).get("auths", {})
            found = next((logins[name]["auth"] for name in names if logins.get(name, {}).get("auth")), None)
            if found is not None:
                base64.b64decode(found, validate=True)
                return str(found)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError, TypeError, binascii.Error) as error:
            raise FetchError(f"{file} cannot be read as a file of `docker login`: {error}") from error
    return None


def _list_login_files() -> list[Path]:
    """List where ``podman login`` and ``docker login`` leave what they were told, as their own tools do."""
    own = os.environ.get("REGISTRY_AUTH_FILE")
    docker = os.environ.get("DOCKER_CONFIG")
    return [*([Path(own)] if own else []), (Path(docker) if docker else Path.home() / ".docker") / "config.json"]
