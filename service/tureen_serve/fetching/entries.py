"""What is fetched, and where to: the flags of ``tureen-serve fetch``, or the entries of its file."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from tureen_core.own_files import is_own_path

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LONGEST_TOKEN = 16_384


class FetchError(ValueError):
    """Something cannot be fetched. The message says what, why, and what to do."""


class FetchEntry(BaseModel):
    """One model to fetch.

    Attributes:
        source: a folder or a tar archive behind a URL, a folder of this machine, ``org/name@revision`` of the hub, or
            ``oci://HOST/NAME:TAG`` of a registry.
        to: the folder that the model gets; it is made, or replaced if an earlier fetch made it.
        digest: ``sha256:`` and the digest of what came, see :mod:`tureen_serve.fetching.digests`.
        token_file: a file with the token for the hub or the web server, or ``user:password`` for a registry.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    to: Path
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    token_file: Path | None = None

    @property
    def shown(self) -> str:
        """The source without what may be secret: the user and the query of a URL."""
        return re.sub(r"//[^/@]*@", "//", self.source.partition("?")[0] if self.is_url else self.source)

    @property
    def known(self) -> str:
        """A name for the source that does not tell its secrets."""
        return f"{self.shown} {hashlib.sha256(self.source.encode()).hexdigest()[:16]}"

    @property
    def is_url(self) -> bool:
        """Whether the source is a URL."""
        return "://" in self.source

    @property
    def is_web(self) -> bool:
        """Whether the source is behind a web server."""
        return self.source.startswith(("http://", "https://"))

    @property
    def is_registry(self) -> bool:
        """Whether the source is an artifact or an image in a registry."""
        return self.source.startswith("oci://")

    @property
    def is_archive(self) -> bool:
        """Whether the source is a tar archive, by the end of its name."""
        path = urlsplit(self.source).path if self.is_url else self.source
        return path.lower().endswith(ARCHIVES)

    def read_token(self) -> str | None:
        """Read the token.

        Raises:
            FetchError: the file cannot be read, or is not one line of a token.
        """
        if self.token_file is None:
            return None
        try:
            with self.token_file.open("rb") as file:
                text = file.read(LONGEST_TOKEN + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FetchError(f"token_file: {self.token_file} cannot be read: {error}") from error
        if not re.fullmatch(r"[!-~]+", text) or len(text) > LONGEST_TOKEN:
            raise FetchError(f"token_file: {self.token_file} must hold one token in one line")
        return text


class _FetchFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sources: list[FetchEntry]


def make_entry(**fields: Any) -> FetchEntry:
    """Make an entry of flags.

    Raises:
        FetchError: a value is invalid; the message names its flag.
    """
    try:
        return FetchEntry.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise FetchError(f"--{flag}: {first['msg']}") from error


def read_entries(file: Path, root: Path | None) -> list[FetchEntry]:
    """Read the entries of a YAML file: a map with the list ``sources``.

    Args:
        root: the folder below which all are fetched, and at which a relative ``to`` starts. Without it each ``to`` is
            absolute.

    Raises:
        FetchError: the file cannot be read, a field is invalid, a ``to`` is not below ``root``, or two share a folder.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = _FetchFile.model_validate(document).sources
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FetchError(f"{file} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise FetchError(f"{file}: {where}: {first['msg']}; write `sources:` and a list of maps") from error
    entries = [entry.model_copy(update={"to": _place(entry.to, root, index)}) for index, entry in enumerate(found)]
    for index, entry in enumerate(entries):
        for other in entries[:index]:
            if entry.to.is_relative_to(other.to) or other.to.is_relative_to(entry.to):
                raise FetchError(f"sources.{index}.to: {entry.to} and {other.to} overlap; give each its own folder")
    return entries


def _place(to: Path, root: Path | None, index: int) -> Path:
    where = f"sources.{index}.to"
    if ".." in to.parts or "\0" in str(to):
        raise FetchError(f"{where}: {str(to)!r} holds `..` or a zero byte; name the folder itself")
    if root is None:
        if not to.is_absolute():
            raise FetchError(f"{where}: {to} is relative; write an absolute path, or give --to as the folder of all")
        return to
    base = root.expanduser().absolute()
    placed = base / to
    if not placed.is_relative_to(base) or placed == base:
        raise FetchError(f"{where}: {to} is not below {root}")
    return placed


def is_safe_name(name: str) -> bool:
    """Whether a name of a file in a source leads to a place inside the folder that it is fetched to."""
    return is_own_path(name) and len(name) <= 1024 and all(len(part.encode()) <= 255 for part in name.split("/"))


def explain_error(error: BaseException) -> str:
    """Say in one line what happened."""
    return " ".join(str(error).split())[:300] or type(error).__name__
