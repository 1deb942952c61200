"""The files of an evaluation: ``results.json`` has the figures, ``scores.jsonl`` the rewards of each item."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.records.schema import BadFile
from tureen_train.evaluation.items import Item, LoadedItems
from tureen_train.evaluation.judging import Row
from tureen_train.evaluation.objectives import ScoredItem
from tureen_train.measures.intervals import Figure, dump_figures, parse_figure
from tureen_train.measures.non_finite import replace_non_finite

RESULTS, SCORES = "results.json", "scores.jsonl"


@dataclass(frozen=True)
class AnsweredItem:
    """One line of ``scores.jsonl``: an item without its texts.

    Attributes:
        credit: the item's credit in [0, 1]; None if it has nothing to compare.
        pairs: the number of comparable pairs.
    """

    id: str
    digest: str
    subset: str
    file: str
    scores: list[float | None]
    rewards: list[float]
    logits: list[float]
    truncated: list[bool]
    lengths: list[int]
    credit: float | None
    pairs: int
    attributes: dict[str, list[float | None]]


@dataclass(frozen=True)
class Evaluation:
    """The contents of an evaluation's folder."""

    folder: Path
    bench: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    figures: Mapping[str, Figure]
    tables: Mapping[str, Mapping[str, Row]]
    notes: Sequence[str]
    answered: Sequence[AnsweredItem]

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.model["name"])

    def gaps(self, logits: bool = False) -> list[float]:
        """Return the gaps of all comparable pairs: the better answer's reward (or logit) minus the worse one's."""
        found: list[float] = []
        for row in self.answered:
            values = zip(row.scores, row.logits if logits else row.rewards, strict=True)
            known = [(score, value) for score, value in values if score is not None]
            found += [a - b for better, a in known for worse, b in known if better > worse]
        return found


def record_answers(item: Item, scored: ScoredItem, credit: float | None) -> AnsweredItem:
    """Make the line of an item with its scores."""
    return AnsweredItem(
        id=item.id,
        digest=item.digest,
        subset=item.subset,
        file=item.file,
        scores=_known(item.scores),
        rewards=scored.rewards,
        logits=scored.logits,
        truncated=scored.truncated,
        lengths=item.lengths,
        credit=credit,
        pairs=len(item.pairs),
        attributes={name: _known(values) for name, values in item.attributes.items()},
    )


def _known(values: Sequence[float]) -> list[float | None]:
    return [value if value == value else None for value in values]


def describe_data(loaded: LoadedItems, rows: Sequence[AnsweredItem]) -> dict[str, Any]:
    """Describe the data for ``results.json``: the counts, and what was read of each file."""
    return {
        "items": len(rows),
        "answers": sum(len(row.rewards) for row in rows),
        "pairs": sum(row.pairs for row in rows),
        "truncated": sum(sum(row.truncated) for row in rows),
        "files": dict(loaded.files),
    }


def write_results(evaluation: Evaluation) -> None:
    """Write both files into the evaluation's folder."""
    document = {
        "kind": "evaluation",
        "bench": evaluation.bench,
        "model": evaluation.model,
        "data": evaluation.data,
        "figures": dump_figures(evaluation.figures),
        "tables": {
            title: {name: dump_figures(row) for name, row in rows.items()} for title, rows in evaluation.tables.items()
        },
        "notes": list(evaluation.notes),
    }
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    (evaluation.folder / RESULTS).write_text(
        json.dumps(replace_non_finite(document), indent=1) + "\n", encoding="utf-8"
    )
    with (evaluation.folder / SCORES).open("w", encoding="utf-8") as file:
        for row in evaluation.answered:
            file.write(json.dumps(row.__dict__) + "\n")


def read_results(folder: Path) -> Evaluation:
    """Read an evaluation's folder.

    Raises:
        BadFile: a file is missing, or is not a file of an evaluation.
    """
    try:
        document = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        rows = [AnsweredItem(**row) for row in _lines(folder / SCORES)]
        return Evaluation(
            folder,
            document["bench"],
            document["model"],
            document["data"],
            {name: parse_figure(value) for name, value in document["figures"].items()},
            {title: _rows(rows) for title, rows in document["tables"].items()},
            document["notes"],
            rows,
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadFile(f"{folder} is not the folder of an evaluation: {error}") from error


def _rows(rows: Mapping[str, Any]) -> dict[str, Row]:
    return {name: {key: parse_figure(value) for key, value in row.items()} for name, row in rows.items()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
