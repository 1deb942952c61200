"""A front measured over HTTP against a real server in this process, broken off, and gone on with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from serve.border import listening
from serve.counting import CountingEngine
from typer.testing import CliRunner, Result

from tureen_train.__main__ import app
from tureen_train.config.fronts import FrontRun
from tureen_train.front.measure import FrontMeasurer

FILES = ("answers.jsonl", "rewards.jsonl", "judged.jsonl")
POINTS, PROMPTS, CANDIDATES = 3, 3, 4


@pytest.fixture(scope="module")
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture(scope="module")
def url(engine: CountingEngine) -> Iterator[str]:
    with listening(engine) as address:
        yield address


def recipe(url: str, folder: Path) -> dict[str, Any]:
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps({"prompts": ["why?", "what?", "who?"]}))
    words = {"server": "own", "model": "words"}
    return {
        "kind": "front",
        "name": "zoo",
        "objectives": {name: {"source": "server", "url": url, "reward": name} for name in ("calm", "funny")},
        "servers": {"own": {"url": url}},
        "methods": [
            {"name": "base", "steering": "none", **words},
            {"name": "soup", **words},
            {"name": "best", "steering": "none", "candidates": CANDIDATES, **words},
        ],
        "baseline": "base",
        "judge": {"source": "server", "url": url, "reward": "calm"},
        "prompts": str(prompts),
        "grid": {"steps": POINTS - 1},
        "sampling": {"max_tokens": 16, "concurrency": 2},
        "output": str(folder / "out"),
    }


def call(folder: Path, raw: dict[str, Any], *arguments: str) -> Result:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return CliRunner().invoke(app, ["front", str(path), *arguments])


def read_rows(folder: Path) -> dict[str, list[str]]:
    return {name: sorted((folder / name).read_text().splitlines()) for name in FILES}


def test_a_front_is_measured_and_a_second_run_asks_nothing(url: str, engine: CountingEngine, tmp_path: Path) -> None:
    result = call(tmp_path, recipe(url, tmp_path))
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert f"the page: {out / 'front.html'}" in result.stdout
    assert {"front.html", "front.png", "hypervolume.png", "results.json", "recipe.yaml"} <= {
        each.name for each in out.iterdir()
    }
    rows = read_rows(out)
    assert len(rows["answers.jsonl"]) == len(rows["rewards.jsonl"]) == (1 + 2 * POINTS) * PROMPTS
    assert len(rows["judged.jsonl"]) == 2 * POINTS * PROMPTS
    told = json.loads((out / "results.json").read_text())["methods"]
    assert [len(told[name]["points"]) for name in ("base", "soup", "best")] == [1, POINTS, POINTS]
    assert told["best"]["tokens"] == CANDIDATES * told["base"]["tokens"]  # the rejected candidates cost too
    assert told["base"]["gain"]["value"] == 0
    written, asked = len(engine.samplings), len(engine.calls)
    assert call(tmp_path, recipe(url, tmp_path)).exit_code == 0
    assert (len(engine.samplings), len(engine.calls), read_rows(out)) == (written, asked, rows)


def test_a_measurement_that_was_broken_off_goes_on_and_writes_the_same(
    url: str, engine: CountingEngine, tmp_path: Path
) -> None:
    run = FrontRun.model_validate(recipe(url, tmp_path))
    count = (1 + POINTS + CANDIDATES) * PROMPTS  # the candidates are the same at all points
    before = len(engine.samplings)
    FrontMeasurer(run, tmp_path / "whole", lambda *_: None).measure()
    assert len(engine.samplings) - before == count

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("soup") and done == 5:
            raise KeyboardInterrupt

    slow = run.model_copy(update={"sampling": run.sampling.model_copy(update={"concurrency": 1})})
    before = len(engine.samplings)
    with pytest.raises(KeyboardInterrupt):
        FrontMeasurer(slow, tmp_path / "broken", stop).measure()
    kept = (tmp_path / "broken" / "answers.jsonl").read_text().splitlines()
    assert PROMPTS < len(kept) < (1 + 2 * POINTS) * PROMPTS
    FrontMeasurer(run, tmp_path / "broken", lambda *_: None).measure()
    whole, broken = read_rows(tmp_path / "whole"), read_rows(tmp_path / "broken")
    for rows in (whole, broken):
        rows["answers.jsonl"] = sorted(json.dumps({**json.loads(row), "seconds": 0}) for row in rows["answers.jsonl"])
    assert broken == whole
    assert len(engine.samplings) - before <= count + 1  # at most the request that was under way


def test_other_settings_in_the_same_folder_are_refused(url: str, tmp_path: Path) -> None:
    raw = recipe(url, tmp_path)
    FrontMeasurer(FrontRun.model_validate(raw), tmp_path / "out", lambda *_: None)
    for change, field in (("sampling.temperature=0", "sampling"), ("methods.1.model=rigid", "methods.soup")):
        result = call(tmp_path, raw, "--set", change)
        assert result.exit_code == 1
        assert f"{field}: {tmp_path / 'out'} holds a measurement with other settings" in result.stderr
