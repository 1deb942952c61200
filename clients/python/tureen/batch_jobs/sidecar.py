"""How far the making of an output file is, noted beside it so that it survives a kill at any point.

For ``out.jsonl`` that is ``out.jsonl.tureen-batch``. A note is on the disk before the next step is begun.
"""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tureen.atomic_files import replace_atomically
from tureen.errors import Conflict
from tureen.wire import Batch, Endpoint

SUFFIX = ".tureen-batch"
REMEDY = "choose another output, or begin anew with --restart"


class Work(BaseModel):
    """What is made of what.

    Attributes:
        input: SHA-256 of the input file.
        endpoint: where its lines go.
        window: how long the batch may take.
    """

    model_config = ConfigDict(frozen=True)

    input: str
    endpoint: Endpoint
    window: str


class Note(BaseModel):
    """How far it is.

    Attributes:
        server: where it was begun.
        file_id: of the uploaded input.
        batch_id: of the batch over it.
        ended: the batch as it ended, once its results stand where they should.
    """

    model_config = ConfigDict(frozen=True)

    work: Work
    server: str
    file_id: str | None = None
    batch_id: str | None = None
    ended: Batch | None = None

    @property
    def key(self) -> str:
        """The key under which this note's batch is made, so that whoever takes the note up again makes no second."""
        told = [*self.work.model_dump().values(), self.file_id]
        return f"tureen-batch-{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"


class Sidecar:
    """The note beside a target."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}{SUFFIX}")

    def read(self) -> Note | None:
        """The note, if there is one.

        Raises:
            Conflict: it cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            return Note.model_validate_json(self.path.read_bytes())
        except ValidationError:
            raise Conflict(f"{self.path} is damaged: {REMEDY}", code="other_work") from None

    def write(self, note: Note) -> Note:
        """Keep a note in place of the last one."""
        with replace_atomically(self.path) as part:
            part.write_text(note.model_dump_json(indent=1), encoding="utf-8")
        return note

    def remove(self) -> None:
        """Forget."""
        self.path.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
