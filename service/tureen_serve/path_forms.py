"""Read a request's method and path as clients write them: a slash at the end of a path, and HEAD where GET is answered.

HTTP's server sends no body to HEAD, and the length of the one that GET has.
"""

from collections.abc import Collection
from typing import Any

from starlette.routing import Route

from tureen_serve.telemetry import App, Receive, Scope, Send


class PathForms:
    """ASGI middleware, before all others."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if len(path) > 1 and path.endswith("/"):
                bare = path.rstrip("/") or "/"
                scope = {**scope, "path": bare, "raw_path": scope.get("raw_path", path.encode()).rstrip(b"/") or b"/"}
            if method == "HEAD":
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def list_methods(routes: Collection[Any], path: str) -> list[str]:
    """List the methods that a path takes."""
    found = {
        method
        for route in routes
        if isinstance(route, Route) and route.path_regex.match(path)
        for method in route.methods or ()
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()))
