"""What the text that names a model means: a folder, a name on the Hugging Face hub, or an fsspec URL."""

import re
from dataclasses import dataclass
from pathlib import Path

HUB = "hf://"
PLACES = "a folder, a name on the Hugging Face hub, or a URL"  # for the helps of commands
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_HUB_NAME = re.compile(rf"(?:{HUB})?(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9_./-]+))?")


@dataclass(frozen=True)
class HubName:
    """A model on the hub. ``revision`` is a branch, a tag or a commit."""

    repository: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.repository if self.revision == "main" else f"{self.repository}@{self.revision}"


def parse_hub_name(text: str, folder: Path = Path()) -> HubName | None:
    """Parse ``org/name``, ``org/name@revision`` or the same after ``hf://``; None for another text.

    If ``folder`` has a folder ``org``, then ``org/name`` is a path in it, and only ``hf://org/name`` names the hub.
    """
    found = _HUB_NAME.fullmatch(text)
    if found is None or (not text.startswith(HUB) and (folder / text.partition("/")[0]).is_dir()):
        return None
    return HubName(found["repository"], found["revision"] or "main")


def is_url(text: str) -> bool:
    """Whether a text is a URL, as ``s3://bucket/model``."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def resolve_source(text: str, folder: Path) -> tuple[str, Path | None]:
    """Make a relative path of a settings file start at ``folder``.

    A URL stays as it is. A hub name becomes ``hf://org/name``, so that it names the hub wherever the server is started.

    Returns:
        The text, and for a hub name the folder that was looked for first.
    """
    if is_url(text):
        return text, None
    path = folder / Path(text).expanduser()
    if not path.exists() and (name := parse_hub_name(text, folder)) is not None:
        return f"{HUB}{name}", path
    return str(path), None
