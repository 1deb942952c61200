"""``tureen-serve fetch``: bring models from stores, web servers or the hub into folders, before a server starts."""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from tureen.commands.flags import Json
from tureen_serve.commands.artifact_flags import exit_with_error
from tureen_serve.fetching.entries import FetchEntry, FetchError, make_entry, read_entries
from tureen_serve.fetching.fetch import Fetched, fetch_model

TERMINATED = 128 + signal.SIGTERM
REPORT_SECONDS = 10.0


def fetch(
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FOLDER|ORG/NAME",
            help="A model: a folder in a store (s3://, gs://, az://), on a web server or on this machine; a tar "
            "archive in one of them; an artifact of a registry, as oci://HOST/NAME:TAG; or a model of the Hugging Face "
            "hub, as org/name@revision.",
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="The folder that the model gets; with --sources, the folder below which all models are."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(
            metavar="sha256:HEX",
            help="What must come: the SHA-256 of an artifact's tureen.json, of an archive, or of a folder as an "
            "earlier fetch printed it. Needed for http and https.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with a token for the hub or the web server, or user:password for a registry."),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(help="A YAML file of several models: `sources:` and a list of source, to, digest, token_file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch models. A folder that holds its model already is left as it is; an interrupted fetch is continued.

    Each folder appears as a whole, after every digest was verified. Exit code 1 means that a model could not be
    fetched, 2 that the flags are wrong.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))  # the first process of a container has no handler
    logging.getLogger().addHandler(logging.NullHandler())  # stores' libraries log what the error says anyway
    try:
        entries = _read_flags(source, to, digest, token_file, sources)
    except FetchError as error:
        exit_with_error(error, 2)
    for entry in entries:
        progress = _Progress(entry.shown)
        try:
            done = fetch_model(entry, progress.add)
        except FetchError as error:
            exit_with_error(error, 1)
        typer.echo(_describe(entry, done, as_json))


def _read_flags(
    source: str | None, to: Path | None, digest: str | None, token_file: Path | None, sources: Path | None
) -> list[FetchEntry]:
    if sources is None:
        if source is None or to is None:
            raise FetchError("give --source and --to, or --sources FILE")
        return [make_entry(source=source, to=to, digest=digest, token_file=token_file)]
    for flag, value in (("--source", source), ("--digest", digest), ("--token-file", token_file)):
        if value is not None:
            raise FetchError(f"{flag} is for one model; in {sources} each has its own")
    return read_entries(sources, to)


def _describe(entry: FetchEntry, done: Fetched, as_json: bool) -> str:
    if as_json:
        facts = {"digest": done.digest, "files": done.files, "bytes": done.size, "downloaded": done.downloaded}
        return json.dumps({"source": entry.shown, "to": str(done.folder), **facts})
    did = "fetched" if done.downloaded else "unchanged"
    return f"{did} {entry.shown} → {done.folder}: {done.files} files, {done.size / 1e6:.1f} MB, {done.digest}"


class _Progress:
    """Tells now and then, on standard error, how much has come."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._came = 0
        self._told = time.monotonic()

    def add(self, size: int) -> None:
        """Count bytes that came."""
        with self._lock:
            self._came += size
            if time.monotonic() - self._told > REPORT_SECONDS:
                self._told = time.monotonic()
                sys.stderr.write(f"tureen-serve: {self._came / 1e6:.0f} MB of {self._shown}\n")
