"""The calls that change the reward models of a server, as generators like those of ``calls.request_flows``."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from tureen import http_replies, http_requests
from tureen.calls.request_flows import Calls, Flow
from tureen.http_requests import HttpRequest
from tureen.retry import Deadline
from tureen.wire import LoadRequest, ModelChange, ShadowReport, ShadowRequest

R = TypeVar("R", bound=BaseModel)
Options = Mapping[str, Any]


class ChangeCalls:
    """The calls, with the timeouts and retries of a client."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def load(self, name: str, options: Options) -> Flow[ModelChange]:
        """``POST /v1/models/{name}/load``."""
        return self._ask("POST", f"{_locate(name)}/load", ModelChange, LoadRequest, options)

    def unload(self, name: str, options: Options) -> Flow[ModelChange]:
        """``POST /v1/models/{name}/unload``."""
        return self._ask("POST", f"{_locate(name)}/unload", ModelChange, None, options)

    def begin_shadow(self, name: str, options: Options) -> Flow[ShadowReport]:
        """``POST /v1/models/{name}/shadow``."""
        return self._ask("POST", f"{_locate(name)}/shadow", ShadowReport, ShadowRequest, options)

    def report_shadow(self, name: str, options: Options) -> Flow[ShadowReport]:
        """``GET /v1/models/{name}/shadow``."""
        return self._ask("GET", f"{_locate(name)}/shadow", ShadowReport, None, options)

    def end_shadow(self, name: str, options: Options) -> Flow[ShadowReport]:
        """``DELETE /v1/models/{name}/shadow``."""
        return self._ask("DELETE", f"{_locate(name)}/shadow", ShadowReport, None, options)

    def _ask(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        reply: type[R],
        kind: type[BaseModel] | None,
        options: Options,
    ) -> Flow[R]:
        fields = {name: value for name, value in options.items() if value is not None}
        until = Deadline(fields.pop("deadline", None), self._calls.clock)
        body = http_requests.build_body(kind, fields) if kind else None
        response = yield from self._calls.exchange(HttpRequest(method, path, body), until)
        return http_replies.parse_response(reply, response)


def _locate(name: str) -> str:
    return f"/v1/models/{quote(name, safe='')}"
