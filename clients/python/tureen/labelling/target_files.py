"""The files that belong to one labelling target, and the names that a target may have."""

from dataclasses import dataclass
from pathlib import Path

from tureen.errors import InvalidRequest
from tureen.labelling import parquet


@dataclass(frozen=True)
class TargetFiles:
    """The files that belong to a target."""

    target: Path

    @property
    def rows(self) -> Path:
        """The finished rows."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def errors(self) -> Path:
        """The items without labels: ``out.errors.jsonl`` for ``out.jsonl``, ``out.jsonl.gz`` and ``out.parquet``."""
        return self.target.with_name(f"{strip_suffixes(self.target)}.errors.jsonl")

    @property
    def errors_part(self) -> Path:
        """The finished errors."""
        return self.errors.with_name(f"{self.errors.name}.part")

    @property
    def state(self) -> Path:
        """The description of the work, and its progress."""
        return self.target.with_name(f"{self.target.name}.run.json")


def strip_suffixes(path: Path) -> str:
    """Remove the suffixes that name the format."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem


def is_inside(path: Path, source: Path) -> bool:
    """Whether writing to a path would change a source: it is the source, or a file in its folder."""
    return source.resolve() in (path.resolve(), *path.resolve().parents)


def check_target(target: Path) -> None:
    """Check that a name has the suffix of a known format.

    Raises:
        InvalidRequest: it has none; the message lists them.
    """
    if not target.name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        raise InvalidRequest(f"{target} must be named .jsonl, .jsonl.gz or .parquet", param="target")
    if target.suffix == ".parquet":
        parquet.require_pyarrow()
