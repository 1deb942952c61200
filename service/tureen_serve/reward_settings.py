"""The settings of one reward model: an item of the field ``rewards`` of :class:`tureen_serve.settings.Settings`."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints

from tureen_core.plain.options import ObjectiveName, PlainOptions
from tureen_core.plain.source_text import resolve_source

FILES = ("template", "tokenizer", "adapter_base")


def _read_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, Path) else value


Source = Annotated[str, BeforeValidator(_read_path), StringConstraints(min_length=1)]


class RewardEntry(PlainOptions):
    """A reward model: an artifact, or a plain folder with what its files do not tell.

    Attributes:
        path: a folder, a name on the Hugging Face hub, or a URL, see :func:`tureen_core.plain.locate.locate_source`.
        name: renames the only objective.
        tried: the folder that was looked for before ``path`` was taken for a name on the hub, for errors. A settings
            file sets it.
    """

    path: Source
    name: ObjectiveName | None = None
    tried: Path | None = None

    @property
    def options(self) -> PlainOptions:
        """What the entry says about a plain folder."""
        return PlainOptions(**self.model_dump(exclude={"path", "name", "tried"}))


def resolve_reward_paths(entry: Any, folder: Path) -> Any:
    """Make the relative paths of an entry of a settings file start at the file's folder."""
    if not isinstance(entry, dict):
        return entry
    found = dict(entry)
    if isinstance(found.get("path"), str):
        found["path"], found["tried"] = resolve_source(found["path"], folder)
    for name in FILES:
        text = found.get(name)
        if not isinstance(text, str):
            continue
        is_file = name == "template" and re.search("[./]", text)  # the names of templates have neither
        if is_file or (folder / Path(text).expanduser()).exists():
            found[name] = str(folder / Path(text).expanduser())
    return found
