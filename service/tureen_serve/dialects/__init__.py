"""Protocols of other servers, so that existing clients work without changes. Each file only translates one of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.routing import APIRoute

from tureen_serve.dialects import gym, infinity, llamafactory, openrlhf, sglang, sglang_native, slime, tei, vllm
from tureen_serve.dialects.error_bodies import build_detail_reply
from tureen_serve.faults import ErrorReplyBuilder


@dataclass(frozen=True)
class Dialect:
    """One protocol.

    Attributes:
        router: its routes.
        build_error: builds the reply for an error on any of its routes; None for the reply of our own routes.
    """

    router: APIRouter
    build_error: ErrorReplyBuilder | None = None


DIALECTS = (
    Dialect(vllm.router, vllm.build_vllm_error),
    Dialect(openrlhf.router),
    Dialect(tei.router, tei.build_tei_error),
    Dialect(sglang.router, sglang.build_sglang_error),
    Dialect(sglang_native.router, sglang_native.build_native_error),
    Dialect(slime.router),
    Dialect(gym.router, build_detail_reply),
    Dialect(llamafactory.router, build_detail_reply),
    Dialect(infinity.router, infinity.build_infinity_error),
)
ERROR_BUILDERS: Mapping[str, ErrorReplyBuilder] = {
    route.path: dialect.build_error
    for dialect in DIALECTS
    if dialect.build_error is not None
    for route in dialect.router.routes
    if isinstance(route, APIRoute)
}
