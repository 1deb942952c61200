"""The settings of files and batches: the field ``batches`` of :class:`tureen_serve.settings.Settings`."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

FOLDER = Path("~/.local/share/tureen")


class BatchSettings(BaseModel):
    """The settings of files and batches.

    Attributes:
        enabled: false refuses all files and batches.
        worker: false accepts batches but leaves the work to other replicas.
        folder: holds the SQLite database and the files, unless ``store`` and ``files`` are set.
        store: an SQLAlchemy URL of a database that replicas share, as ``postgresql+psycopg://…``.
        files: an fsspec URL of a folder that replicas share, as ``s3://bucket/tureen``.
        file_bytes: the largest file. An upload is a temporary file until it is stored.
        lines: the largest number of lines in a file.
        line_bytes: the longest line.
        chunk_lines: a chunk ends after so many lines or after ``chunk_bytes``, whichever comes first.
        chunks: how many chunks this server runs at a time.
        texts: how many chats of one chunk are written at a time.
        uploads: how many uploads are received at a time; more are refused and may be tried again.
        lease_seconds: how long a server holds a chunk before it must renew the lease. If the server dies, others wait
            as long before they run the chunk.
        poll_seconds: how often an idle server looks for work.
        keep_days: files are deleted after so many days.
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
            raise ValueError("must be a URL, as s3://bucket/tureen; for a local folder set `folder` instead")
        return files

    @property
    def store_url(self) -> str:
        """The URL of the database."""
        return self.store or f"sqlite:///{self.folder.expanduser() / 'batches.sqlite'}"

    @property
    def files_url(self) -> str:
        """The URL or the folder of the files."""
        return self.files or str(self.folder.expanduser() / "files")
