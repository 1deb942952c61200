"""The audit log: one JSON line for every administrative call and for every change of the keys, on standard error.

A line says who did what from where, and with which result. It never has a key, and no body.
"""

import logging
from typing import Any

from tureen_serve.log_lines import JsonLines
from tureen_serve.security.callers import find_caller_of
from tureen_serve.security.scopes import KeyScope, RouteScopes
from tureen_serve.telemetry import App, Message, Receive, Scope, Send

LOG = logging.getLogger("tureen_serve.audit")


def start_audit_log() -> None:
    """Write the audit log as JSON and complete, whatever the settings say of other messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    LOG.handlers = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def log_event(event: str, **facts: Any) -> None:
    """Write a line into the audit log."""
    LOG.info("%s", event, extra={"facts": {"event": event, **facts}})


class Audit:
    """ASGI middleware: notes every call of a route with the scope ``admin``, refused ones too.

    Args:
        scopes: the scopes of the application's routes.
    """

    def __init__(self, app: App, scopes: RouteScopes) -> None:
        self._app = app
        self._scopes = scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._scopes.find_scope(scope["method"], scope["path"]) is not KeyScope.ADMIN:
            return await self._app(scope, receive, send)
        status: int | None = None

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            caller = find_caller_of(scope)
            log_event(
                "admin_call",
                caller=caller and caller.name,
                tenant=caller and caller.tenant,
                address=(scope.get("client") or [None])[0],
                method=scope["method"],
                path=scope["path"],
                status=status,
            )
