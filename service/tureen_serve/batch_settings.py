"""The settings of files and batches: the field ``batches`` of :class:`tureen_serve.settings.Settings`."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

FOLDER = Path("~/.local/share/tureen")


class BatchSettings(BaseModel):
    """Files and batches.

    ``folder`` holds a SQLite database and the files, unless ``store`` (an SQLAlchemy URL, ``postgresql+psycopg://…``)
    and ``files`` (an fsspec URL, ``s3://bucket/tureen``) say otherwise; replicas share both. ``worker: false`` takes
    batches and leaves the work to other replicas. A batch is run in chunks of ``chunk_lines`` or ``chunk_bytes``,
    whichever is reached first, ``chunks`` of them at a time, each at most ``texts`` of its chats at once. A chunk is
    leased for ``lease_seconds`` and again before they have passed; when a server dies, others wait that long. Files
    are kept for ``keep_days``. An upload of up to ``file_bytes`` lies in the folder for temporary files until it is
    stored: ``uploads`` of them are taken at once, and more are told to come again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    worker: bool = True
    folder: Path = FOLDER
    store: str | None = None
    files: str | None = None
    file_bytes: PositiveInt = 200 * 2**20
    lines: PositiveInt = 50_000
    line_bytes: PositiveInt = 2**20
    chunk_lines: PositiveInt = 64
    chunk_bytes: PositiveInt = 2**20
    chunks: PositiveInt = 1
    texts: PositiveInt = 8
    uploads: PositiveInt = 4
    lease_seconds: Annotated[float, Field(ge=0.4)] = 60.0
    poll_seconds: PositiveFloat = 2.0
    keep_days: PositiveInt = 30

    @field_validator("files")
    @classmethod
    def _is_url(cls, files: str | None) -> str | None:
        if files is not None and "://" not in files:
            raise ValueError("must be a URL, as s3://bucket/tureen; for a local folder set `folder`")
        return files

    @property
    def store_url(self) -> str:
        """Where jobs are kept."""
        return self.store or f"sqlite:///{self.folder.expanduser() / 'batches.sqlite'}"

    @property
    def files_url(self) -> str:
        """Where files are kept."""
        return self.files or str(self.folder.expanduser() / "files")
