"""The folders that a request may name: those below the roots of the setting, and no link out of them."""

from collections.abc import Sequence
from pathlib import Path

from tureen.errors import Unprocessable
from tureen_core.own_files import find_outside_link

PATH = "path"


def find_allowed_folder(text: str, roots: Sequence[Path]) -> Path:
    """Find the folder that ``text`` names: an absolute path below a root, or a path from a root.

    The answer does not depend on what lies outside the roots.

    Raises:
        Unprocessable: it is not below a root, is no folder, or it or a file in it is a link out of the root.
    """
    if not roots:
        message = (
            "this server has no `load_roots`, so only what its configuration names can be loaded; leave `path` out"
        )
        raise _refuse(message)
    if "\0" in text or ".." in Path(text).parts:
        raise _refuse(f"{text!r} holds `..` or a zero byte; name a folder below one of `load_roots`")
    for named in roots:
        root = named.resolve()
        folder = root / _cut_root(Path(text), (named.absolute(), root))
        if not folder.is_relative_to(root) or folder == root:
            continue
        if not folder.resolve().is_relative_to(root):
            raise _refuse(f"{text!r} is a link out of its root, or lies behind one; copy what it points to")
        if folder.is_dir():
            return _check_links(folder.resolve(), root)
    raise _refuse(f"{text!r} is no folder below one of `load_roots`")


def _cut_root(path: Path, spellings: Sequence[Path]) -> Path:
    """Cut the root off an absolute path below it. Other paths stay."""
    return next((path.relative_to(each) for each in spellings if path.is_relative_to(each)), path)


def _check_links(folder: Path, root: Path) -> Path:
    link = find_outside_link(folder, root)
    if link is not None:
        raise _refuse(f"{link.relative_to(root)} is a link out of its root; copy what it points to")
    return folder


def _refuse(message: str) -> Unprocessable:
    return Unprocessable(message, param=PATH, code="path_not_allowed")
