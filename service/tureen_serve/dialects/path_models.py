"""A model in the path, as ``/tei/helpful/rerank``: for protocols whose bodies have none.

Their clients append to a base URL, where ``?model=`` would be lost, or stand before what is appended.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

Named = Annotated[str, Path(description="the rewards, as `model` names them in other bodies")]


async def _take_name(model: Named) -> None:
    """Take the name of the path. The routes that score read it where they read ``?model=``."""


def open_paths(prefix: str, routes: APIRouter) -> APIRouter:
    """Open a protocol's routes under a prefix, and under the prefix and the name of a model."""
    router = APIRouter()
    router.include_router(routes, prefix=prefix)
    router.include_router(routes, prefix=f"{prefix}/{{model}}", dependencies=[Depends(_take_name)])
    return router
