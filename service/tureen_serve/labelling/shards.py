"""Find the input files of a labelling run, and name the output file of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen.errors import InvalidRequest, Unprocessable
from tureen.labelling.target_files import is_inside, strip_suffixes
from tureen.records import saved_datasets
from tureen.records.schema import BadFile

READ = ("*.jsonl", "*.jsonl.gz", "*.json", "*.csv", "*.tsv", "*.parquet")


@dataclass(frozen=True)
class Shard:
    """One file of items, and the file for its rows."""

    source: Path
    target: Path


def find_shards(inputs: Sequence[Path], folder: Path, ending: str) -> list[Shard]:
    """Make a shard for each input file, each file of items in an input folder, and each split of a saved dataset.

    Args:
        inputs: files, folders with files, and folders that ``datasets`` saved.
        folder: for the targets, which are named as the inputs.
        ending: of the targets, as ``.jsonl``.

    Raises:
        InvalidRequest: there are no files, two shards have the same target, or a target is an input.
        Unprocessable: a saved dataset is damaged.
    """
    found = [
        Shard(source, folder / f"{name}{ending}")
        for given in inputs
        for source, name in (_list_sources(given) if given.is_dir() else [(given, strip_suffixes(given))])
    ]
    if not found:
        raise InvalidRequest(f"the inputs have no files of items; give files named {', '.join(READ)}", param="inputs")
    for shard in found:
        alike = [each.source for each in found if each.target == shard.target]
        if len(alike) > 1:
            raise InvalidRequest(f"{alike[0]} and {alike[1]} would both be written to {shard.target}; rename one")
        if is_inside(shard.target, shard.source):
            raise InvalidRequest(f"{shard.source} would be overwritten; give another folder with --out")
    return found


def _list_sources(folder: Path) -> list[tuple[Path, str]]:
    """List the sources in a folder, each with a name for its rows. Several splits are named ``folder-split``."""
    if not saved_datasets.is_saved_dataset(folder):
        return [(path, strip_suffixes(path)) for path in sorted(path for kind in READ for path in folder.glob(kind))]
    try:
        splits = saved_datasets.list_splits(folder)
    except BadFile as error:
        raise Unprocessable(str(error)) from error
    if len(splits) < 2:
        return [(folder, folder.name)]
    return [(folder / split, f"{folder.name}-{split}") for split in splits]
