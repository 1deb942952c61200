"""Turn pydantic's list of errors into one sentence: the field, and what is wrong with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from tureen.errors import Unprocessable
from tureen.message_fields import BadMessage

SENTENCES = {"missing": "is required", "extra_forbidden": "is not a field of this request"}
Path = tuple[int | str, ...]
Listed = ErrorDetails | Mapping[str, Any]


def explain_errors(errors: Sequence[Listed], document: Any) -> Unprocessable:
    """Return an error for the first mistake.

    Args:
        errors: pydantic's list. A union gives several errors for one mistake; the one with the longest path is used.
        document: the validated input. Location parts that it does not have are names of union branches.
    """
    found = [_locate(error, document) for error in errors]
    union = found[0].union
    rivals = [each for each in found if union is not None and each.union == union] or found[:1]
    path = max((each.path for each in rivals), key=len)
    problem = ", or ".join(dict.fromkeys(_sentence(each.error) for each in rivals if each.path == path))
    param = join_path(path)
    return Unprocessable(f"{param}: {problem}" if param else problem, param=param)


def join_path(path: Iterable[int | str]) -> str | None:
    """Join a path as ``items[3].candidates[1]``. Return None for the empty path, the document itself."""
    steps = (f"[{step}]" if isinstance(step, int) else step if step.startswith("[") else f".{step}" for step in path)
    text = "".join(steps)
    return text.removeprefix(".") or None


@dataclass(frozen=True)
class _Found:
    """An error, its path in the document, and the path of the outermost union it passed through."""

    error: Listed
    path: Path
    union: Path | None


def _locate(error: Listed, document: Any) -> _Found:
    path: Path = ()
    union: Path | None = None
    for step in error["loc"]:
        if _holds(document, step):
            path, document = (*path, step), document[step]
        elif union is None:
            union = path
    if error["type"] == "missing":
        path = (*path, error["loc"][-1])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, BadMessage) and cause.field:
        path = (*path, cause.field)
    return _Found(error, path, union)


def _holds(document: Any, step: int | str) -> bool:
    if isinstance(document, Mapping):
        return step in document
    return isinstance(document, Sequence) and isinstance(step, int) and step < len(document)


def _sentence(error: Listed) -> str:
    if error["type"] in SENTENCES:
        return SENTENCES[error["type"]]
    cause = error.get("ctx", {}).get("error")
    told: str = cause.problem if isinstance(cause, BadMessage) else error["msg"]
    message = told.removeprefix("Value error, ").replace(" after validation", "")
    message = message.removeprefix("Input ") if message.startswith("Input should") else message
    return message[:1].lower() + message[1:]
