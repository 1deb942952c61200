"""Folders in which ``datasets`` saved a ``Dataset`` or a ``DatasetDict``."""

import json
from pathlib import Path
from typing import Any

from tureen.records.schema import BadFile, BadOption


def is_saved_dataset(path: Path) -> bool:
    """Whether ``datasets`` saved a ``Dataset`` or a ``DatasetDict`` in a folder."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def list_splits(path: Path) -> list[str]:
    """List the splits of a saved ``DatasetDict``. A saved ``Dataset`` has none.

    Raises:
        BadFile: the list is damaged.
    """
    try:
        return list(json.loads((path / "dataset_dict.json").read_bytes())["splits"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} is a damaged dataset: dataset_dict.json does not list its splits") from error


def open_dataset(path: Path, split: str | None = None) -> tuple[Any, Path]:
    """Open a dataset that ``datasets`` saved. Returns its rows, and its path with the split for their places.

    Raises:
        BadFile: the folder holds no dataset, the dataset is damaged, or the package is not installed.
        BadOption: see :func:`tureen.records.containers.read_rows`.
    """
    if not is_saved_dataset(path):
        raise BadFile(f"{path} is a folder, and no Hugging Face dataset was saved in it")
    try:
        from datasets import DatasetDict, load_from_disk  # takes seconds and pandas: only for those who read one
        from pyarrow import ArrowException
    except ImportError:
        raise BadFile(f"{path}: a saved dataset needs the package datasets: pip install datasets") from None
    try:
        saved = load_from_disk(str(path))
    except (ArrowException, OSError, ValueError) as error:
        raise BadFile(f"{path} is a damaged dataset: {error}") from error
    if isinstance(saved, DatasetDict):
        name = _one_split(path, list(saved), split)
        saved, path = saved[name], path / name
    elif split is not None:
        raise BadOption(f"{path} is one dataset without splits; leave split={split!r} out")
    return saved, path


def _one_split(path: Path, names: list[str], split: str | None) -> str:
    if split is None and len(names) == 1:
        return names[0]
    if split not in names:
        named = f"; {split!r} is none of them" if split else ""
        raise BadOption(
            f"{path} has the splits {', '.join(names)}{named}; name one, or give its folder, as {path / names[0]}"
        )
    return split
