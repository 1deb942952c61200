"""The guard before all routes: by which name, who calls, whether the key has the route's scope, and its quota."""

from collections.abc import Callable

from tureen.errors import Forbidden, Unauthorized
from tureen_serve.inference.demand import TENANT
from tureen_serve.log_lines import CALLER
from tureen_serve.security.callers import ANONYMOUS, CURRENT, LOCAL, Caller, note_caller
from tureen_serve.security.host_names import HostNames
from tureen_serve.security.key_ring import KeyRing
from tureen_serve.security.pages import asks_page
from tureen_serve.security.scopes import METRICS, OPEN, RouteScopes
from tureen_serve.settings import Settings
from tureen_serve.telemetry import App, Receive, Scope, Send


class Guard:
    """ASGI middleware: refuses callers without a key, and keys without the route's scope, before a body is read.

    A path without a route needs a key too, so that nobody learns without one which routes there are.

    Args:
        ring: returns the keys that count now; None if the settings have no keys.
        scopes: the scopes of the application's routes.
    """

    def __init__(self, app: App, ring: Callable[[], KeyRing] | None, scopes: RouteScopes, settings: Settings) -> None:
        self._app = app
        self._ring = ring
        self._scopes = scopes
        self._open = OPEN | {METRICS} if settings.access.open_metrics else OPEN
        self._keyless = ANONYMOUS if settings.access.anonymous else LOCAL
        self._hosts = HostNames(settings.host_names)
        self._pages = {origin.encode() for origin in settings.access.cors_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            self._hosts.check(_read_header(scope, b"host"))
        if scope["type"] != "http" or scope["path"] in self._open or _opens_page(scope):
            return await self._app(scope, receive, send)
        caller = self._find_caller(scope)
        note_caller(scope, caller)
        needed = self._scopes.find_scope(scope["method"], scope["path"])
        if needed is not None:
            caller.require_scope(needed)
        if caller.quota is not None:
            caller.quota.admit_request(caller.name)
        TENANT.set(caller.tenant)
        token = CURRENT.set(caller)
        try:
            await self._app(scope, receive, send)
        finally:
            CURRENT.reset(token)

    def _find_caller(self, scope: Scope) -> Caller:
        if self._ring is None:
            self._refuse_foreign_page(scope)
            return self._keyless
        caller = self._ring().find_caller(_read_key(scope))
        if caller is None:
            raise Unauthorized("send a key that this server knows in the header `Authorization: Bearer <key>`")
        CALLER.set(caller.name)  # the outermost middleware takes it back, after it has logged the request
        caller.check_expiry()
        return caller

    def _refuse_foreign_page(self, scope: Scope) -> None:
        """Refuse a web page of another origin where no key is needed: its forms can send, though it reads no reply."""
        origin = _read_header(scope, b"origin")
        if not origin or origin in self._pages or b"*" in self._pages:
            return
        if origin.partition(b"://")[2] != _read_header(scope, b"host"):
            shown = origin.decode("latin-1")
            message = f"a page of {shown} may not call this server; name it in `access.cors_origins`"
            raise Forbidden(message, code="foreign_origin")


def _opens_page(scope: Scope) -> bool:
    reads = scope["method"] in ("GET", "HEAD")
    return reads and asks_page(scope["path"], _read_header(scope, b"accept").decode("latin-1"))


def _read_key(scope: Scope) -> bytes:
    """Read the key: as OpenAI's clients send it, or as those of Azure and Anthropic do."""
    scheme, _, key = _read_header(scope, b"authorization").partition(b" ")
    if scheme:
        return key.strip() if scheme.lower() == b"bearer" else b""
    return (_read_header(scope, b"api-key") or _read_header(scope, b"x-api-key")).strip()


def _read_header(scope: Scope, wanted: bytes) -> bytes:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""
