"""The records of a run: read, split by prompt, limited, and their provenance."""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tureen.records.pairing import split_into_pairs
from tureen.records.reading import Reading, ReadingReport
from tureen.records.schema import Record
from tureen_train.config import Data, RecipeError, Source
from tureen_train.records.splitting import hold_out_prompts, limit_records

log = logging.getLogger("tureen.train")


@dataclass(frozen=True)
class RunData:
    """What a run trains on, what it is judged on by name, and where both came from."""

    train: list[Record]
    eval: Mapping[str, list[Record]]
    provenance: Mapping[str, Any]


def load_data(data: Data, prompts: bool = False) -> RunData:
    """Read a recipe's data; no prompt that is trained on is evaluated on, whichever file it stands in.

    Args:
        prompts: read the records for their prompts. They need no answers, and ``pairs_per_prompt`` and ``to_pairs``
            are ignored.

    Raises:
        DataError: a file cannot be read, an option does not fit, or a record is bad under ``strict``.
        RecipeError: nothing of a named file is left to judge by, too many records of a file are dropped, or
            ``calibrate_on`` names no evaluation file.
    """
    provenance: dict[str, Any] = {}
    read_all = [_read(source, data, provenance, prompts) for source in data.train]
    train, held = hold_out_prompts([record for each in read_all for record in each], data.holdout, data.seed)
    trained = {record.prompt_key for record in train}
    pairs = train if prompts else draw_pairs(train, data.pairs_per_prompt, data.seed)
    train = draw_records(pairs, data.limit, data.seed)
    judged = {"heldout": draw_records(held, data.eval_limit, data.seed)} if held and not data.eval else {}
    for name, source in data.eval.items():
        records = _read(source, data, provenance, prompts)
        kept = records if data.eval_whole else hold_out_prompts(records, data.holdout, data.seed)[1]
        unseen = [record for record in kept if record.prompt_key not in trained]
        if not unseen:
            raise RecipeError(f"data.eval.{name}: nothing is left to judge by: raise data.holdout, or set eval_whole")
        judged[name] = draw_records(unseen, data.eval_limit, data.seed)
    if data.calibrate_on is not None and data.calibrate_on not in judged:
        known = ", ".join(judged) or "none"
        raise RecipeError(f"data.calibrate_on: {data.calibrate_on!r} is no evaluation file; there are: {known}")
    return RunData(train, judged, provenance)


def list_ratings(data: Data) -> list[str]:
    """List the names of the ratings in the training files, in the order in which they come.

    Raises:
        DataError: see :func:`load_data`.
    """
    found: dict[str, None] = {}
    for source in data.train:
        for record in _open(source, data, prompts=False):
            found |= dict.fromkeys(record.attributes)
    return list(found)


def _open(source: Source, data: Data, prompts: bool) -> Reading:
    path = Path(source.path)
    return Reading(
        path if path.is_absolute() else Path(data.root) / path,
        form=source.form,
        domain=source.domain,
        exclude=source.exclude,
        pairs=source.to_pairs and not prompts,
        split=source.split,
        strict=source.strict,
        renamed=source.map,
        turn_reversed=source.reversed_pairs == "turn",
        prompts=prompts,
    )


def _read(source: Source, data: Data, provenance: dict[str, Any], prompts: bool) -> list[Record]:
    """Read one file. What was read of it is logged once, however often the recipe names the file."""
    reading = _open(source, data, prompts)
    records = list(reading)
    report = reading.report
    found = {
        "sha256": next(iter(report.files.values())),
        "kept": report.kept,
        "dropped": report.dropped,
        "dropped_answers": report.dropped_answers,
        "comparable": report.comparable,
        "tied": report.tied,
        "unjudged": report.unjudged,
        "forms": report.forms,
        "columns": report.columns,
    }
    if provenance.get(source.path) != found:
        for line in report.lines():
            log.info("%s: %s", source.path, line)
    provenance[source.path] = found
    _check_dropped(source, report, data.most_dropped)
    return records[: source.limit]


def _check_dropped(source: Source, report: ReadingReport, most: float) -> None:
    dropped = sum(report.dropped.values())
    if dropped > most * report.read:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
        example = next(each for examples in report.examples.values() for each in examples)
        raise RecipeError(
            f"data: {dropped} of {report.read} records of {source.path} are dropped ({reasons}), more than the share "
            f"of {most:g} that data.most_dropped allows; correct the file, or raise data.most_dropped. One of them: "
            f"{example}"
        )


def draw_records(records: Sequence[Record], count: int | None, seed: int) -> list[Record]:
    """``count`` records drawn by ``seed``, or all."""
    return list(records) if count is None else limit_records(records, count, seed)


def draw_pairs(records: Sequence[Record], count: int | None, seed: int) -> list[Record]:
    """Break records into pairs and keep ``count`` of each, drawn with ``seed``; None leaves records as they are."""
    if count is None:
        return list(records)
    rng = random.Random(seed)
    drawn = []
    for record in records:
        pairs = list(split_into_pairs([record]))
        drawn += rng.sample(pairs, min(count, len(pairs)))
    return drawn
