"""ASGI middleware, the outermost: gives every request an id, measures it, and logs one line for it."""

import logging
import random
import re
import time
from collections.abc import Iterable
from typing import Any

from tureen_serve.log_lines import CALLER, REQUEST_ID
from tureen_serve.telemetry import METHODS, QUIET, UNMATCHED, App, Message, Metrics, Receive, Scope, Send

LOG = logging.getLogger(__name__)
SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_GONE = 499
BARRED = {401, 403}  # always logged
IDS = random.Random()  # ids are no secrets, and the system's own numbers would let other threads in for each request


class RouteTemplates:
    """The templates of a server's routes, by path. It is for requests that were refused before they met their route.

    Args:
        routes: each has a ``path``; one with parameters also has ``path_regex``.
    """

    def __init__(self, routes: Iterable[Any]) -> None:
        known = list(routes)
        self._fixed = {route.path for route in known if "{" not in route.path}
        self._patterns = [(route.path_regex, str(route.path)) for route in known if "{" in route.path]

    def find(self, path: str) -> str:
        """Return the template of a path, ``unmatched`` if no route has the path."""
        if path in self._fixed:
            return path
        return next((template for pattern, template in self._patterns if pattern.match(path)), UNMATCHED)


class Telemetry:
    """ASGI middleware around the whole application.

    Args:
        metrics: where requests are counted.
        templates: those of the application's routes.
    """

    def __init__(self, app: App, metrics: Metrics, templates: RouteTemplates) -> None:
        self._app = app
        self._metrics = metrics
        self._templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        name = _request_id(scope)
        token, caller = REQUEST_ID.set(name), CALLER.set(None)
        status, first = CLIENT_GONE, None
        began = time.perf_counter()

        async def named(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status, first = message["status"], time.perf_counter() - began
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name.encode())]}
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, named)
            finally:
                self._note(scope, status, time.perf_counter() - began, first)
                REQUEST_ID.reset(token)
                CALLER.reset(caller)

    def _note(self, scope: Scope, status: int, seconds: float, first: float | None) -> None:
        matched = scope.get("route")
        route = self._templates.find(scope["path"]) if matched is None else matched.path
        method, fault = scope["method"], scope.get("tureen.fault")
        self._metrics.count_request(route, method, status, fault)
        self._metrics.find_duration(route, f"{status // 100}xx").observe(seconds)
        level = logging.DEBUG if route in QUIET and status not in BARRED else logging.INFO
        if LOG.isEnabledFor(level):
            told = method if method in METHODS else "other"
            facts = {"method": told, "route": route, "status": status, "fault": fault, "seconds": round(seconds, 4)}
            facts["first_byte_seconds"] = None if first is None else round(first, 4)
            LOG.log(level, "%s %s %s in %.3f s", told, route, status, seconds, extra={"facts": facts})


def _request_id(scope: Scope) -> str:
    """Return the caller's ``x-request-id`` if it is safe to write into a log, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SAFE_ID.fullmatch(text := str(value, "latin-1")):
            return text
    return f"req_{IDS.getrandbits(128):032x}"
