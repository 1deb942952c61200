"""The Dockerfile, read into its stages."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docker" / "Dockerfile"


@dataclass
class Stage:
    """One ``FROM`` and the instructions under it, as (word, rest of the line)."""

    name: str
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for each, rest in self.lines if each == word]


def stages() -> dict[str, Stage]:
    """Stages by name, in the file's order."""
    found: dict[str, Stage] = {}
    for word, rest in _instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = Stage(name, base)
        elif found:
            list(found.values())[-1].lines.append((word, rest))
    return found


def lineage(target: str) -> list[Stage]:
    """A target's stage and those that it stands on, the target last."""
    known = stages()
    chain = [known[target]]
    while chain[0].base in known:
        chain.insert(0, known[chain[0].base])
    return chain


def environment(target: str) -> dict[str, str]:
    """The variables that containers of a target start with."""
    pairs = [pair for stage in lineage(target) for line in stage.all("ENV") for pair in line.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def last(target: str, word: str) -> str:
    """The instruction that holds in a target: the last of its kind."""
    return [rest for stage in lineage(target) for rest in stage.all(word)][-1]


def command(target: str) -> list[str]:
    """What a container of a target runs."""
    return [part for word in ("ENTRYPOINT", "CMD") for part in json.loads(last(target, word))]


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", PATH.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line.split(maxsplit=1) for line in joined.splitlines() if line]
    return [(word, rest) for word, rest in lines]
