"""Call the function of a route whose dependencies need nothing but the request, without FastAPI's solver.

For each request FastAPI walks through the tree of dependencies, parses cookies, queries and the content type anew for
each of them, and keeps three exit stacks. That took a third of the event loop's time. Here the tree is made into a list
once. What OpenAPI tells of a route is FastAPI's, and so is the answer to every request.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, serialize_response

NO_BODY = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
OTHER_NAMES = (
    "cookie_params",
    *("websocket_param_name", "http_connection_param_name", "response_param_name"),
    *("background_tasks_param_name", "security_scopes_param_name"),
)
OTHER_REPLIES = (
    *("response_model_include", "response_model_exclude", "response_model_exclude_unset"),
    *("response_model_exclude_defaults", "response_model_exclude_none", "status_code", "stream_item_field"),
)


@dataclass(frozen=True)
class Step:
    """One function to call.

    Attributes:
        values: parameter → place of the earlier step whose result it gets.
        request: the parameter that gets the request, if there is one.
        paths: FastAPI's fields of the parameters that come from the path.
        queries, headers: the same of those that come from the query and from the headers.
        opens: whether the function returns a context manager, which stays open until the reply is sent.
    """

    function: Callable[..., Any]
    values: Sequence[tuple[str, int]]
    request: str | None
    paths: Sequence[Any]
    queries: Sequence[Any]
    headers: Sequence[Any]
    opens: bool


class RouteCall:
    """The steps of one route: the dependencies in order, and its function last.

    Args:
        body: the parameter that gets the body.
    """

    def __init__(self, route: APIRoute, steps: Sequence[Step], body: str) -> None:
        self._dependencies, self._last = steps[:-1], steps[-1]
        self._body, self._field, self._reply = body, route.body_field, route.response_field

    async def answer(self, request: Request, document: Any, stack: AsyncExitStack) -> Response:
        """Call the route's function, and make its reply.

        Args:
            document: the parsed body.
            stack: closed by the caller when the reply is sent.

        Raises:
            RequestValidationError: the query or the body is not what the route takes.
        """
        errors: list[Any] = []
        results: list[Any] = []
        for step in self._dependencies:
            arguments = _collect_arguments(step, request, results, errors)
            if errors:
                break
            made = step.function(**arguments)
            results.append(await (stack.enter_async_context(made) if step.opens else made))
        arguments = {} if errors else _collect_arguments(self._last, request, results, errors)
        assert self._field is not None
        if document is None:
            errors.append(NO_BODY)
        else:
            arguments[self._body], found = self._field.validate(document, {}, loc=("body",))
            errors += found
        if errors:
            raise RequestValidationError(errors, body=document)
        reply = await self._last.function(**arguments)
        if isinstance(reply, Response):
            return reply
        content = await serialize_response(field=self._reply, response_content=reply, dump_json=True)
        return Response(content, media_type="application/json")


def plan_call(route: APIRoute) -> RouteCall | None:
    """Plan the call of a route's function; None if only FastAPI can call it."""
    bodies, field = route.dependant.body_params, route.body_field
    plain = (
        len(bodies) == 1
        and field is bodies[0]
        and field.field_info.is_required()
        and route.dependant.is_coroutine_callable
        and (route.response_field is None or isinstance(route.response_class, DefaultPlaceholder))
        and not any(getattr(route, name) for name in OTHER_REPLIES)
    )
    steps: dict[Any, Step] = {}
    if not plain or not _list_steps(route.dependant, steps):
        return None
    return RouteCall(route, list(steps.values()), bodies[0].name)


def _list_steps(dependant: Dependant, steps: dict[Any, Step]) -> bool:
    """Add what a function needs, and then the function itself. Returns whether all of it can be called here."""
    values = []
    for needed in dependant.dependencies:
        key = needed.cache_key
        if needed.body_params or needed.scope == "function" or not needed.use_cache:
            return False
        if key not in steps and not _list_steps(needed, steps):
            return False
        if needed.name is not None:
            values.append((needed.name, list(steps).index(key)))
    call, opens = dependant.call, dependant.is_async_gen_callable
    if any(getattr(dependant, name) for name in OTHER_NAMES) or call is None:
        return False
    if not (opens or dependant.is_coroutine_callable):
        return False
    function = asynccontextmanager(call) if opens else call
    read = dependant.path_params, dependant.query_params, dependant.header_params
    steps[dependant.cache_key] = Step(function, values, dependant.request_param_name, *read, opens)
    return True


def _collect_arguments(step: Step, request: Request, results: Sequence[Any], errors: list[Any]) -> dict[str, Any]:
    """Collect the arguments of a step. Errors of the path, the query and the headers are added to ``errors``."""
    arguments = {name: results[place] for name, place in step.values}
    if step.request is not None:
        arguments[step.request] = request
    given = request.path_params, request.query_params, request.headers
    for fields, values in zip((step.paths, step.queries, step.headers), given, strict=True):
        if fields:
            found, wrong = request_params_to_args(fields, values)
            arguments |= found
            errors += wrong
    return arguments
