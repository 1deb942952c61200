"""Small files as people have them, read as `tests/cases/expected.jsonl` says: public layouts and their spellings."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tureen.records.reading import Reading
from tureen.records.schema import Record

CASES = Path(__file__).parents[1] / "cases"
TRAINING = ("training",)  # refusals that begin so are training's, and not the reader's
EXPECTED = [json.loads(line) for line in (CASES / "expected.jsonl").read_text("utf-8").split("\n") if line]


def test_every_file_has_its_expectation() -> None:
    assert sorted(case["file"] for case in EXPECTED) == sorted(
        path.relative_to(CASES).as_posix() for path in (CASES / "records").iterdir()
    )


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: Path(case["file"]).name)
def test_a_file_is_read_as_is_right_or_refused(case: dict[str, Any]) -> None:
    reading = Reading(CASES / case["file"], renamed=case.get("map", {}))
    records = list(reading)
    if "refused" in case:
        if case["refused"].startswith(TRAINING):
            assert reading.report.kept
        else:
            assert reading.report.examples
            assert records == []
        return
    assert reading.report.dropped == {}, reading.report.examples
    wanted = case.get("records") or [case["each"]] * reading.report.read
    assert reading.report.read > 0
    assert [told(record, want) for record, want in zip(records, wanted, strict=True)] == [
        (want["prompt"], want["answers"], want["scores"]) for want in wanted
    ]


def told(record: Record, want: dict[str, Any]) -> tuple[Any, Any, Any]:
    """A record in the words of its expectation."""
    prompt = want["prompt"] if isinstance(want["prompt"], str) else [dict(turn) for turn in record.prompt]
    answers = [[dict(turn) for turn in answer] for answer in record.answers]
    scores: Any = [None if math.isnan(score) else score for score in record.scores]
    if any(isinstance(score, str) for score in want["scores"]):
        scores = name_order(record.scores)
    return prompt, answers, scores


def name_order(scores: tuple[float, ...]) -> list[str]:
    if len(set(scores)) == 1:
        return ["equal"] * len(scores)
    names = ["lower", "higher"] if len(scores) == 2 else ["lowest", "middle", "highest"]
    return [names[sorted(scores).index(score)] for score in scores]
