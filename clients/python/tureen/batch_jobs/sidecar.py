"""The progress of a batch run, saved beside its output file so that a killed run can continue.

For ``out.jsonl`` the file is ``out.jsonl.tureen-batch``. Each note is on the disk before the next step begins.
"""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tureen.atomic_files import replace_atomically
from tureen.errors import Conflict
from tureen.wire import Batch, Endpoint

SUFFIX = ".tureen-batch"
REMEDY = "choose another output file, or start again with --restart"


class Work(BaseModel):
    """What identifies a run.

    Attributes:
        input: SHA-256 of the input file.
        endpoint: the route that its lines are sent to.
        window: how long the batch may take.
    """

    model_config = ConfigDict(frozen=True)

    input: str
    endpoint: Endpoint
    window: str


class Note(BaseModel):
    """The progress of a run.

    Attributes:
        server: the address of the server that runs it.
        file_id: the id of the uploaded input.
        batch_id: the id of the batch.
        ended: the ended batch, set once its results are saved.
    """

    model_config = ConfigDict(frozen=True)

    work: Work
    server: str
    file_id: str | None = None
    batch_id: str | None = None
    ended: Batch | None = None

    @property
    def key(self) -> str:
        """The idempotency key of this run's batch: a continued run finds its batch and creates no second one."""
        told = [*self.work.model_dump().values(), self.file_id]
        return f"tureen-batch-{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"


class Sidecar:
    """Reads and writes the note beside a target."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}{SUFFIX}")

    def read(self) -> Note | None:
        """Return the note, or None if there is none.

        Raises:
            Conflict: the note is damaged.
        """
        if not self.path.exists():
            return None
        try:
            return Note.model_validate_json(self.path.read_bytes())
        except ValidationError:
            raise Conflict(f"{self.path} is damaged: {REMEDY}", code="other_work") from None

    def write(self, note: Note) -> Note:
        """Replace the last note by this one."""
        with replace_atomically(self.path) as part:
            part.write_text(note.model_dump_json(indent=1), encoding="utf-8")
        return note

    def remove(self) -> None:
        """Delete the note."""
        self.path.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
