"""``/v1/files``: the part of OpenAI's files API that batches need. An upload goes to the disk while it arrives."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tureen.errors import InvalidRequest, Unavailable, Unprocessable, UnsupportedMedia
from tureen.validation import explain_errors
from tureen.wire import ExpiresAfter, File, FileDeleted, FileList, Purpose
from tureen_serve.batches.batch_service import BatchService
from tureen_serve.batches.file_store import PART_BYTES
from tureen_serve.batches.records import EVERYBODY, Viewer, new_id
from tureen_serve.faults import document_openai_errors
from tureen_serve.security.callers import CURRENT
from tureen_serve.security.scopes import KeyScope

UPLOAD = "/v1/files"
LONGEST_NAME = 255
FORM_BYTES = 2**16  # for the other fields of the form
FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSON Lines, one request a line"},
        "purpose": {"type": "string", "enum": ["batch"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer"},
    },
}
SCHEMA = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}

router = APIRouter(tags=["batches"])


async def _batches(request: Request) -> BatchService:
    found: BatchService = request.app.state.batches
    found.opened()
    return found


async def _viewer() -> Viewer:
    caller = CURRENT.get()
    return EVERYBODY if caller is None else Viewer(caller.tenant, KeyScope.ADMIN in caller.scopes)


BatchesDep = Annotated[BatchService, Depends(_batches)]
ViewerDep = Annotated[Viewer, Depends(_viewer)]


@router.post(UPLOAD, responses=document_openai_errors(400, 404, 413, 415, 422, 503, 504), openapi_extra=SCHEMA)
async def upload(request: Request, batches: BatchesDep, viewer: ViewerDep) -> File:
    """Upload a file of requests for a batch. Keys of the same tenant find it, and keys with the scope `admin`."""
    with batches.uploading():
        return await _store_upload(request, batches, viewer)


async def _store_upload(request: Request, batches: BatchService, viewer: Viewer) -> File:
    async with _open_form(request) as form:
        file, expires = _check_form(form)
        name = PurePosixPath(file.filename or "upload.jsonl").name[:LONGEST_NAME]
        opened, options = batches.opened(), batches.options
        stored = await batches.io(opened.files.write, f"uploads/{new_id('')}", _read_parts(file), options.file_bytes)
        return await batches.io(opened.store.add_file, stored, name, seconds=expires, viewer=viewer)


@asynccontextmanager
async def _open_form(request: Request) -> AsyncIterator[FormData]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UnsupportedMedia("send the file as multipart/form-data, with the fields `file` and `purpose`")
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            yield form
    except HTTPException as error:  # Starlette raises it for a form that cannot be read
        raise InvalidRequest(f"the form cannot be read: {error.detail}") from None
    except ClientDisconnect:
        raise InvalidRequest("the upload was interrupted; send the file again") from None
    except OSError as error:  # an upload is a temporary file until it is stored
        message = f"the server cannot store the upload now ({error.strerror or type(error).__name__}); try again later"
        raise Unavailable(message, code="store_unavailable", retry_after=30) from error


def _check_form(form: FormData) -> tuple[UploadFile, int | None]:
    """Return the file, and after how many seconds it expires."""
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Unprocessable("file: is required; send it as a file of the form", param="file")
    if form.get("purpose") != "batch":
        raise Unprocessable("purpose: must be `batch`; this server uses files only for batches", param="purpose")
    expires = {
        name: form[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in form
    }
    if not expires:
        return file, None
    try:
        return file, ExpiresAfter.model_validate(expires).seconds
    except ValidationError as error:
        raise explain_errors(error.errors(include_url=False), expires).at("expires_after") from None


def _read_parts(file: UploadFile) -> Iterator[bytes]:
    file.file.seek(0)
    while part := file.file.read(PART_BYTES):
        yield part


@router.get("/v1/files", responses=document_openai_errors(404, 422, 503, 504))
async def files(
    batches: BatchesDep,
    viewer: ViewerDep,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: str | None = None,
    purpose: Purpose | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> FileList:
    """List uploaded files and the output files of batches."""
    return await batches.io(batches.opened().store.list_files, limit, after, purpose, order, viewer)


@router.get("/v1/files/{file_id}", responses=document_openai_errors(404, 422, 503, 504))
async def file(file_id: str, batches: BatchesDep, viewer: ViewerDep) -> File:
    """Return a file's name, size and dates."""
    found, _ = await batches.io(batches.opened().store.get_file, file_id, viewer)
    return found


@router.get(
    "/v1/files/{file_id}/content",
    response_class=StreamingResponse,
    responses=document_openai_errors(404, 422, 503, 504),
)
async def content(file_id: str, batches: BatchesDep, viewer: ViewerDep) -> StreamingResponse:
    """Return the bytes of a file, as a stream."""
    opened = batches.opened()
    _, stored = await batches.io(opened.store.get_file, file_id, viewer)
    parts = opened.files.read(stored.key)
    first = await batches.io(next, parts, b"")
    return StreamingResponse(
        chain([first], parts), media_type="application/octet-stream", headers={"content-length": str(stored.bytes)}
    )


@router.delete("/v1/files/{file_id}", responses=document_openai_errors(404, 409, 422, 503, 504))
async def delete(file_id: str, batches: BatchesDep, viewer: ViewerDep) -> FileDeleted:
    """Delete a file. A file that a batch still reads cannot be deleted."""
    opened = batches.opened()
    key = await batches.io(opened.store.delete_file, file_id, viewer)
    await batches.io(opened.files.remove, key)
    return FileDeleted(id=file_id)
