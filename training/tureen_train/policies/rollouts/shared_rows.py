"""A file of a round that one process writes and all know."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tureen_train.config import RecipeError
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.crew import Crew
from tureen_train.runs.line_file import LineFile

Row = dict[str, Any]


class SharedRows:
    """The rows of a file by their prompts, in every process. Process 0 reads and writes the file.

    Every process must make the same calls.

    Args:
        prompts: those of which the file may have rows.

    Attributes:
        rows: what is in the file.

    Raises:
        RecipeError: the file has a row of another prompt.
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path, prompts: Sequence[Prompt], crew: Crew) -> None:
        self._path = path
        self._file: LineFile | None = None
        self.rows: dict[str, Row] = crew.lead(self._open)
        strange = next(iter(self.rows.keys() - {prompt.id for prompt in prompts}), None)
        if strange is not None:
            raise RecipeError(f"{path} has a line of {strange}, which is no prompt of this round; use --overwrite")

    def _open(self) -> dict[str, Row]:
        self._file = LineFile(self._path)
        return {row["prompt"]: row for row in self._file.rows}

    def extend(self, rows: Sequence[Row]) -> None:
        """Add rows, which are the same in all processes."""
        if self._file:
            self._file.extend(rows)
        self.rows |= {row["prompt"]: row for row in rows}
