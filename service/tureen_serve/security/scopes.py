"""The scope of every route: what a key must carry to call it. One table for our own routes and for all dialects.

:func:`match_routes` refuses a route that the table does not know, so no route can be open by mistake.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum

OPEN = {"/health/live", "/health/ready"}  # probes have no keys
PAGE_FILES = "/playground/{file}"  # a browser loads the page before the person gives a key
METRICS = "/metrics"


class KeyScope(StrEnum):
    """What a key may be used for."""

    SCORE = "score"
    GENERATE = "generate"
    BATCH = "batch"
    READ = "read"
    ADMIN = "admin"
    METRICS = "metrics"


ALL_SCOPES = frozenset(KeyScope)
USER_SCOPES = ALL_SCOPES - {KeyScope.ADMIN, KeyScope.METRICS}

_VLLM = "/classify /pooling /score /rerank /tokenize /detokenize"
ROUTES: Mapping[KeyScope, Mapping[str, str]] = {
    KeyScope.SCORE: {
        "POST": f"""
            /v1/score /v1/score/explain /v1/preferences /v1/preferences/fit
            {_VLLM} {_VLLM.replace("/", "/vllm/")} /vllm/v1/score /vllm/v1/rerank /vllm/v2/rerank
            /v1/rerank /v2/rerank /v1/embeddings
            /get_reward /slime
            /tei /tei/predict /tei/rerank
            /sglang/classify /sglang/v1/embeddings /sglang/v1/score /sglang/v1/rerank
            /gym/verify /gym/seed_session /gym/close_session /gym/aggregate_metrics
            /llamafactory/v1/score/evaluation
            /infinity/rerank /infinity/classify
            /tei/{{model}} /tei/{{model}}/predict /tei/{{model}}/rerank
            /gym/{{model}}/verify /gym/{{model}}/seed_session /gym/{{model}}/close_session
            /gym/{{model}}/aggregate_metrics
        """,
        "PUT": "/sglang/classify /sglang/v1/rerank",
        "GET": "/gym/reverify_mode /gym/{model}/reverify_mode",
    },
    KeyScope.GENERATE: {
        "POST": "/v1/chat/completions /v1/completions /v1/responses",
        "GET": "/v1/responses/{response_id}",
        "DELETE": "/v1/responses/{response_id}",
    },
    KeyScope.BATCH: {
        "POST": "/v1/files /v1/batches /v1/batches/{batch_id}/cancel",
        "GET": "/v1/files /v1/files/{file_id} /v1/files/{file_id}/content /v1/batches /v1/batches/{batch_id}",
        "DELETE": "/v1/files/{file_id}",
    },
    KeyScope.READ: {
        "GET": """
            / /openapi.json /health /v1/models /v1/models/{name}
            /vllm/health /vllm/v1/models /tei/info /tei/health /infinity/models /infinity/health
            /tokenizer_info /vllm/tokenizer_info /tei/{model}/info /tei/{model}/health
        """,
    },
    KeyScope.ADMIN: {
        "POST": "/v1/models/{name}/load /v1/models/{name}/unload /v1/models/{name}/shadow",
        "GET": "/v1/models/{name}/shadow",
        "DELETE": "/v1/models/{name}/shadow",
    },
    KeyScope.METRICS: {"GET": METRICS},
}
SCOPES: Mapping[tuple[str, str], KeyScope] = {
    (method, path): scope
    for scope, methods in ROUTES.items()
    for method, paths in methods.items()
    for path in paths.split()
}

RouteFacts = tuple[Collection[str], str, re.Pattern[str]]


class RouteScopes:
    """Finds the scope of a request's route, before the framework does.

    Args:
        exact: (method, path) → scope, for routes without parameters.
        patterns: method, pattern and scope of the routes with parameters, in the framework's order.
    """

    def __init__(
        self, exact: Mapping[tuple[str, str], KeyScope], patterns: Iterable[tuple[str, re.Pattern[str], KeyScope]]
    ) -> None:
        self._exact = exact
        self._patterns = list(patterns)

    def find_scope(self, method: str, path: str) -> KeyScope | None:
        """Find the scope of a request; None if no route answers it."""
        method = "GET" if method == "HEAD" else method
        found = self._exact.get((method, path))
        if found is not None:
            return found
        return next((scope for verb, pattern, scope in self._patterns if verb == method and pattern.match(path)), None)


class UnguardedRoute(RuntimeError):
    """A route has no scope. It is a mistake in the code."""


def match_routes(routes: Iterable[RouteFacts]) -> RouteScopes:
    """Give every route of an application its scope.

    Args:
        routes: of each route its methods, its template such as ``/v1/models/{name}``, and the pattern of its paths.

    Raises:
        UnguardedRoute: a route has no scope.
    """
    exact: dict[tuple[str, str], KeyScope] = {}
    patterns: list[tuple[str, re.Pattern[str], KeyScope]] = []
    for methods, template, pattern in routes:
        for method in sorted({*methods} - {"HEAD"}):
            if template in OPEN or template == PAGE_FILES:
                continue
            if (method, template) not in SCOPES:
                raise UnguardedRoute(f"{method} {template} has no scope: name it in {__name__}.ROUTES")
            scope = SCOPES[method, template]
            if "{" in template:
                patterns.append((method, pattern, scope))
            else:
                exact[method, template] = scope
    return RouteScopes(exact, patterns)
