"""Find the input files of a labelling run, and name the output file of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen.errors import InvalidRequest
from tureen.labelling.target_files import strip_suffixes

READ = ("*.jsonl", "*.jsonl.gz", "*.json", "*.csv", "*.tsv", "*.parquet")


@dataclass(frozen=True)
class Shard:
    """One file of items, and the file for its rows."""

    source: Path
    target: Path


def find_shards(inputs: Sequence[Path], folder: Path, ending: str) -> list[Shard]:
    """Make a shard for each input file, and for each file of items in an input folder.

    Args:
        inputs: files and folders.
        folder: for the targets, which are named as the inputs.
        ending: of the targets, as ``.jsonl``.

    Raises:
        InvalidRequest: there are no files, two shards have the same target, or a target is an input.
    """
    sources = [source for given in inputs for source in (_inside(given) if given.is_dir() else [given])]
    found = [Shard(source, folder / f"{strip_suffixes(source)}{ending}") for source in sources]
    if not found:
        raise InvalidRequest(f"the inputs have no files of items; give files named {', '.join(READ)}", param="inputs")
    for shard in found:
        alike = [each.source for each in found if each.target == shard.target]
        if len(alike) > 1:
            raise InvalidRequest(f"{alike[0]} and {alike[1]} would both be written to {shard.target}; rename one")
        if shard.source.resolve() == shard.target.resolve():
            raise InvalidRequest(f"{shard.source} would be overwritten; give another folder with --out")
    return found


def _inside(folder: Path) -> list[Path]:
    return sorted(path for pattern in READ for path in folder.glob(pattern))
