"""The first page: the playground for browsers, the list of routes for all other clients; and the playground's files.

The page is built from ``service/playground``. It uses public routes only.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from fastapi.routing import APIRoute

from tureen.errors import NotFound
from tureen_serve.faults import document_errors
from tureen_serve.security.pages import asks_page
from tureen_serve.security.scopes import PAGE_FILES

router = APIRouter(tags=["operations"])

FOLDER = Path(__file__).parents[1] / "playground"
PAGE = "index.html"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",  # text becomes HTML only through the sanitizer
    )
)
PAGE_HEADERS = {"content-security-policy": POLICY, "vary": "accept"}
FILE_HEADERS = {"cache-control": "public, max-age=31536000, immutable"}  # a name has the hash of the content


@router.get("/", response_model=None, responses=document_errors(401))
async def first_page(request: Request) -> dict[str, Any] | Response:
    """All routes, each with the first line of its description. A browser gets the playground."""
    if asks_page("/", request.headers.get("accept", "")):
        return FileResponse(FOLDER / PAGE, headers=PAGE_HEADERS)
    found = [route for route in request.app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    lines = {f"{'/'.join(sorted(route.methods))} {route.path}": route.description.splitlines()[0] for route in found}
    return {"service": "tureen", "version": version("tureen"), "routes": lines, "schema": "/openapi.json"}


@router.get(PAGE_FILES, include_in_schema=False)
async def page_file(file: str) -> Response:
    """A file that the page names."""
    known = {path.name: path for path in FOLDER.iterdir() if path.name != PAGE}
    if file not in known:
        raise NotFound(f"the playground has no file {file!r}; open it at /")
    return FileResponse(known[file], headers=FILE_HEADERS)
