"""Files of items for tests of labelling, and the plans they are labelled by."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow.parquet import write_table

from tureen.labelling.labelling_run import Plan
from tureen.labelling.recipe import Recipe
from tureen_serve.labelling.shards import Shard, find_shards

BAD = ["{", {"prompt": "x", "candidates": ["one"]}, {"prompt": "x", "candidates": ["why " * 400, "short"]}]


def item(number: int) -> dict[str, Any]:
    """Three answers of different lengths, the prompt a text or a conversation."""
    prompt: Any = f"why do leaves fall {number}?"
    if number % 3 == 0:
        prompt = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]
    return {"prompt": prompt, "candidates": ["the fox " * (1 + (number + place) % 4) for place in range(3)]}


def write(path: Path, lines: Sequence[Any]) -> Path:
    """Lines as JSON Lines, those that are text as they stand; or items as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        write_table(pyarrow.Table.from_pylist(list(lines)), path)
    else:
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def inputs(folder: Path) -> list[Shard]:
    """Two shards: JSON Lines with bad lines among them, and Parquet."""
    write(folder / "in" / "a.jsonl", [*map(item, range(7)), *BAD, *map(item, range(7, 10))])
    write(folder / "in" / "b.parquet", [item(number) for number in range(20) if number % 3])
    return outputs(folder, "out")


def outputs(folder: Path, name: str) -> list[Shard]:
    """The same shards, their rows in a folder of that name."""
    (folder / name).mkdir(exist_ok=True)
    return find_shards([folder / "in"], folder / name, ".jsonl")


def plan(**changes: Any) -> Plan:
    """Two items a run, bad ones set aside."""
    return Plan(**{"recipe": Recipe("trl"), "spare": True, "size": 2, **changes})


def rows(path: Path) -> list[Any]:
    """What stands in JSON Lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def ignore(count: int) -> None:
    """Sees progress and says nothing."""
