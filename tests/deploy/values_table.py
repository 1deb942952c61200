"""The table of values in the README of each chart, made of the comments in its values.yaml.

    python tests/deploy/values_table.py

writes both tables anew. A value's comment starts with ``# --``; its further lines belong to it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node

CHARTS = Path(__file__).parents[2] / "helm"
MARKS = ("<!-- values -->", "<!-- end of values -->")


class Undescribed(ValueError):
    """A value has no comment."""


def read_values(file: Path) -> Iterator[tuple[str, str, str]]:
    """Dotted path, default as JSON, and description of each value.

    Raises:
        Undescribed: a value has no comment, nor has the map in which it stands.
    """
    text = file.read_text()
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, MappingNode)
    yield from _walk(root, "", text.splitlines(), yaml.safe_load(text))


def _walk(node: MappingNode, path: str, lines: list[str], values: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, child in node.value:
        here = f"{path}.{key.value}".lstrip(".")
        told = _read_comment(lines, key)
        value = values[key.value]
        if told is None and isinstance(child, MappingNode) and child.value:
            yield from _walk(child, here, lines, value)
        elif told is None:
            raise Undescribed(f"{here} has no comment that starts with `# --`")
        else:
            yield here, json.dumps(value), told


def _read_comment(lines: list[str], key: Node) -> str | None:
    """The comment above a key, from its last ``# --`` on."""
    found: list[str] = []
    for line in reversed(lines[: key.start_mark.line]):
        text = line.strip()
        if not text.startswith("#"):
            return None
        found.insert(0, text.removeprefix("#").removeprefix(" --").strip())
        if text.startswith("# --"):
            return " ".join(found)
    return None


def make_table(file: Path) -> str:
    """The table in Markdown."""
    rows = [(f"`{path}`", f"`{default}`", told) for path, default, told in read_values(file)]
    lines = ["| value | default | what it is |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows])


def place_table(readme: str, table: str) -> str:
    """The README with the table between its marks."""
    before, _, rest = readme.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"


if __name__ == "__main__":
    for chart in sorted(path.parent for path in CHARTS.glob("*/values.yaml")):
        page = chart / "README.md"
        page.write_text(place_table(page.read_text(), make_table(chart / "values.yaml")))
