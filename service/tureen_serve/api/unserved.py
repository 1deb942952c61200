"""Routes of OpenAI's that this server does not have. Each says why, and which route to use."""

from typing import NoReturn

from fastapi import APIRouter

from tureen.errors import NotFound

router = APIRouter(include_in_schema=False)


@router.post("/v1/embeddings", response_model=None)
async def refuse_embeddings() -> NoReturn:
    """Say where the rewards of texts are."""
    message = "this server makes no embeddings; rewards of texts are at /v1/score, and, shaped as embeddings, at"
    raise NotFound(f"{message} /sglang/v1/embeddings and /pooling", code="unknown_route")


@router.get("/v1/responses/{response_id}", response_model=None)
@router.delete("/v1/responses/{response_id}", response_model=None)
async def refuse_stored(response_id: str) -> NoReturn:
    """Say that nothing is stored."""
    message = f"no response is called {response_id[:100]!r}: no store of responses is configured; keep what you need"
    raise NotFound(message, code="not_stored")
