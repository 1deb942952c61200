"""A sweep between two experts: by the real server, and what its numbers, table and files say."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from rich.console import Console
from typer.testing import CliRunner, Result

from tureen import Client
from tureen.errors import TureenError, Unavailable
from tureen_train.__main__ import app
from tureen_train.evaluation.cli import PROMPTS, read_prompts
from tureen_train.evaluation.server import run_server
from tureen_train.evaluation.sweep import WeightSweep, make_table, sweep_weights, write_sweep

NAMES = ("academy", "entertainment")


@pytest.fixture(scope="module")
def url(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server over tiny artifacts."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "tureen_serve", "--dtype", "float32"]
    for seed, name in enumerate(NAMES):
        command += ["--reward", str(tiny.reward(folder / f"r-{name}", base, name, seed).folder)]
        command += ["--expert", str(tiny.expert(folder / f"e-{name}", base, name, seed).folder)]
    with run_server(command) as address:
        yield address


def made(first: list[float], second: list[float]) -> WeightSweep:
    """A sweep of one prompt with these rewards."""
    weights = [number / (len(first) - 1) for number in range(len(first))]
    rewards = {"academy": [[value] for value in first], "entertainment": [[value] for value in second]}
    return WeightSweep(*NAMES, weights, [["x"] for _ in first], rewards)


def call(*arguments: str | int | Path) -> Result:
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)], env={"COLUMNS": "120"})


# --------------------------------------------------------------------------- against the server


def test_each_text_is_the_souped_policys_own_and_so_is_its_reward(url: str) -> None:
    prompts = ["why?", "what is autumn?"]
    with Client(url) as client:
        result = sweep_weights(client, prompts, *NAMES, steps=3, tokens=6, model=None)
        assert result.weights == [0, 0.5, 1]
        weights = {"academy": 0.5, "entertainment": 0.5}
        alone = client.chat(prompts[1], preferences=weights, max_tokens=6, temperature=0.0)
        assert result.texts[1][1] == (alone.text or " ")
        scored = client.score([{"prompt": prompts[1], "candidates": [result.texts[1][1]]}], rewards=list(NAMES))
    (candidate,) = scored.data[0].candidates
    assert candidate.scores is not None
    for name in NAMES:
        assert len(result.rewards[name]) == 3
        assert result.rewards[name][1][1] == pytest.approx(candidate.scores[name].calibrated, abs=1e-4)
    assert len({result.texts[0][0], result.texts[2][0]}) == 2


def test_the_command_prints_a_table_and_leaves_plot_and_texts(url: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("why?\n\nwhat?\nhow?\n")
    result = call(
        "--url", url, "--prompts", tmp_path / "prompts.txt", "--limit", 2, "--steps", 3, "--tokens", 4,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "mean calibrated reward of 2 prompts" in result.stdout
    assert "Spearman with its own weight" in result.stdout
    assert f"the plot: {tmp_path / 'out' / 'sweep.png'}" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sweep.png", "sweep.csv", "texts.jsonl"}
    texts = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").read_text().splitlines()]
    assert [(each["weight"], each["prompt"]) for each in texts] == [
        (weight, prompt) for weight in (0, 0.5, 1) for prompt in ("why?", "what?")
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--from", "poetry"], "poetry"),
        (["--model", "nothing"], "nothing"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_what_cannot_be_swept_is_one_line(url: str, tmp_path: Path, options: list[str], says: str) -> None:
    result = call("--url", url, "--steps", 2, "--tokens", 2, "--limit", 1, "--out", tmp_path, *options)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("tureen-train: ")
    assert says in result.stderr


def test_one_expert_twice_is_no_sweep() -> None:
    result = call("--from", "academy", "--to", "academy")
    assert result.exit_code == 2
    assert "name the same expert" in result.stderr


def test_an_unknown_reward_is_the_servers_refusal(url: str) -> None:
    with Client(url) as client, pytest.raises(TureenError) as caught:
        sweep_weights(client, ["why?"], "academy", "poetry", steps=2, tokens=2, model=None)
    assert "poetry" in str(caught.value)


# --------------------------------------------------------------------------- numbers


def test_spearman_is_each_objectives_with_its_own_weight() -> None:
    assert made([3, 2, 1], [1, 2, 3]).spearman() == pytest.approx({"academy": 1, "entertainment": 1})
    assert made([1, 2, 3], [1, 3, 2]).spearman() == pytest.approx({"academy": -1, "entertainment": 0.5})


def test_a_reward_that_never_moves_correlates_with_nothing() -> None:
    found = made([1, 1, 1], [1, 2, 3]).spearman()
    assert math.isnan(found["academy"])
    assert found["entertainment"] == pytest.approx(1)


def test_the_table_has_a_row_a_weight_and_the_correlations_below() -> None:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(make_table(made([3, 2, 1], [-1, 0.5, 2])))
    text = shown.get()
    for row in ("0 ", "0.5 ", "1 "):
        assert row in text
    assert "+3.000" in text
    assert "-1.000" in text
    assert text.count("+1.00 ") == 2


def test_the_titles_say_which_rewards_are_raw(tmp_path: Path) -> None:
    result = replace(made([3, 2], [1, 2]), raw={"academy"})
    assert result.unit() == "mean calibrated reward (raw of academy, without a calibration)"
    assert make_table(result).title == f"{result.unit()} of 1 prompts"
    write_sweep(result, ["p"], tmp_path)
    assert made([3, 2], [1, 2]).unit() == "mean calibrated reward"


def test_files_hold_means_and_standard_errors(tmp_path: Path) -> None:
    rewards = {"academy": [[1.0, 3.0], [0.0, 0.0]], "entertainment": [[0.0, 1.0], [2.0, 4.0]]}
    result = WeightSweep(*NAMES, [0, 1], [["a", "b"], ["c", "d"]], rewards)
    write_sweep(result, ["p", "q"], tmp_path / "deep" / "out")
    rows = list(csv.reader((tmp_path / "deep" / "out" / "sweep.csv").read_text().splitlines()))
    assert rows[0] == [
        "weight of entertainment",
        "academy mean",
        "academy se",
        "entertainment mean",
        "entertainment se",
    ]
    assert [float(cell) for cell in rows[1]] == pytest.approx([0, 2, 1, 0.5, 0.5])
    assert [float(cell) for cell in rows[2]] == pytest.approx([1, 0, 0, 3, 1])
    assert (tmp_path / "deep" / "out" / "sweep.png").stat().st_size > 5000


# --------------------------------------------------------------------------- prompts


def test_the_packaged_prompts_are_enough_and_their_licence_is_named() -> None:
    assert len(read_prompts(PROMPTS)) >= 24
    assert len(set(read_prompts(PROMPTS))) == len(read_prompts(PROMPTS))
    assert "CC BY-NC" in json.loads(PROMPTS.read_text())["licence"]


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("a.txt", "one\n\n  two \n", ["one", "two"]),
        ("a.json", '["one", "two"]', ["one", "two"]),
        ("a.json", '{"prompts": ["one", " "]}', ["one"]),
    ],
)
def test_forms_of_prompts(name: str, text: str, prompts: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_prompts(tmp_path / name) == prompts


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", " \n", "has no prompt"),
        ("a.json", "{}", "`prompts` must be a list of texts"),
        ("a.json", "[1]", "`prompts` must be a list of texts"),
        ("a.json", "[]", "has no prompt"),
        ("a.json", "{", "line 1"),
    ],
)
def test_what_is_no_prompts_is_refused(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        read_prompts(tmp_path / name)


# --------------------------------------------------------------------------- the server's life


def test_a_server_that_ends_before_it_is_ready_is_told_at_once() -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(Unavailable, match="ended with status 3"), run_server(command):
        pytest.fail("it never served")


def test_a_server_that_never_gets_ready_is_given_up_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_train.evaluation.server.LOOK", 0.2)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(Unavailable, match="not ready after"), run_server(command, patience=0.4):
        pytest.fail("it never served")
