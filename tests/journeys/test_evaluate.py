"""Trained, served, evaluated both ways: an artifact in process and a server over HTTP give the same numbers."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from client.standin import serving as hosting
from scales import scale_of
from train.test_evaluation_pairwise_models import comparer
from train.tiny_runs import records, reward_run
from typer.testing import CliRunner

from tureen import Client
from tureen_core.artifact import Artifact
from tureen_serve.app import create_app
from tureen_serve.settings import RewardEntry, Settings
from tureen_train.__main__ import app
from tureen_train.evaluation.server import run_server
from tureen_train.rewards.run import train_reward

LONG = "why do leaves fall in autumn? " * 30


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    folder = tmp_path_factory.mktemp("trained")
    base = tiny.base_with_tools(folder / "base")
    # at a higher rate all pairs are right and the temperature falls to 0.01: logits are then near 300, where float32's
    # own rounding is above 1e-4
    artifact = train_reward(reward_run(base, folder, optimisation={"max_steps": 30, "learning_rate": 3e-4}))
    assert artifact is not None
    return [artifact, tiny.reward(folder / "leaves", base, "leaves", 3)]


@pytest.fixture(scope="module")
def url(trained: list[Artifact]) -> Iterator[str]:
    rewards = [word for each in trained for word in ("--reward", str(each.folder))]
    with run_server([sys.executable, "-m", "tureen_serve", "--dtype", "float32", *rewards]) as address:
        yield address


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file for each benchmark, with texts that are too long, dialogues parting before their last turn, and tools."""
    folder = tmp_path_factory.mktemp("data")
    pairs = records(folder)
    extra = {"chosen": f"\n\nHuman: a\n\nAssistant: b {LONG}", "rejected": "\n\nHuman: c\n\nAssistant: d"}
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "2"}]
    right = {"role": "assistant", "content": "Two."}
    tools = {"prompt": "How many?", "chosen": [*turns, right], "rejected": "No idea.", "tools": [{"name": "f"}]}
    (folder / "extra.json").write_text(json.dumps([extra, tools]))
    v1 = [
        {"prompt": f"prompt {n}", "chosen": "the quick fox", "rejected": f"why {n}", "subset": subset, "id": n}
        for subset in ("math-prm", "hep-go", "donotanswer")
        for n in range(4)
    ]
    (folder / "v1.jsonl").write_text("\n".join(map(json.dumps, v1)))
    valid = {"ref": ["fox"], "tied": ["fox", "a fox"]}
    v2 = [
        {"prompt": "p", "chosen": answers, "rejected": ["why", f"do {n}", "x"], "subset": "Ties", "id": f"{kind}:{n}"}
        for n in range(4)
        for kind, answers in valid.items()
    ]
    v2 += [{**row, "subset": "Math", "chosen": ["a fox"]} for row in v2[::2]]
    (folder / "v2.jsonl").write_text("\n".join(map(json.dumps, v2)))
    return {"pairs": pairs, "extra": folder / "extra.json", "rewardbench": folder / "v1.jsonl",
            "rewardbench2": folder / "v2.jsonl"}  # fmt: skip


def evaluated(out: Path, *arguments: str | Path) -> tuple[Any, list[Any]]:
    """Results and scores of an evaluation by the command line."""
    outcome = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--out", str(out)])
    assert outcome.exit_code == 0, outcome.output
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    return json.loads((out / "results.json").read_text()), scores


def values(document: Any) -> dict[str, float | None]:
    """Every figure's value, by where it stands."""
    found = {name: figure["value"] for name, figure in document["figures"].items()}
    for title, rows in document["tables"].items():
        for name, row in rows.items():
            found |= {f"{title} {name} {key}": figure["value"] for key, figure in row.items()}
    return found


@pytest.mark.parametrize("bench", ["pairs", "rewardbench", "rewardbench2"])
def test_in_process_and_over_http_are_the_same(
    bench: str, trained: list[Artifact], url: str, data: dict[str, Path], tmp_path: Path
) -> None:
    files: list[str | Path] = ["--bench", bench, "--data", data[bench]]
    if bench == "pairs":
        files += ["--data", data["extra"]]
    here, here_scores = evaluated(tmp_path / "here", trained[0].folder, *files)
    there, there_scores = evaluated(tmp_path / "there", f"{url}#foxes", *files)
    assert len(here_scores) == len(there_scores) == here["data"]["items"]
    for one, other in zip(here_scores, there_scores, strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-4)
        assert one["logits"] == pytest.approx(other["logits"], abs=1e-4)
        alike = ("id", "digest", "scores", "credit", "truncated", "lengths")
        assert [one[key] for key in alike] == [other[key] for key in alike]
    assert here["notes"] == there["notes"]
    assert here["model"]["calibration"] == there["model"]["calibration"]
    assert values(here) == pytest.approx(values(there), abs=1e-3)
    assert here["figures"]["accuracy"] == there["figures"]["accuracy"]
    trained_on = [note for note in here["notes"] if "was trained on this file" in note]
    if bench == "pairs":
        assert any(one["truncated"] == [True, False] for one in here_scores)
        assert [note.partition(":")[0] for note in trained_on] == [data["pairs"].name]
    else:
        assert trained_on == []


def test_weighed_objectives_are_the_same_too(
    trained: list[Artifact], url: str, data: dict[str, Path], tmp_path: Path
) -> None:
    """Over HTTP two models are weighed; each alone, in process, and weighed here by hand, gives the same."""
    weighed, scores = evaluated(tmp_path / "both", url, "--data", data["pairs"], "--preferences", "foxes=1,leaves=3")
    alone = [evaluated(tmp_path / each.name, each.folder, "--data", data["pairs"])[1] for each in trained]
    scales = [scale_of(each.manifest.objectives[0]) for each in trained]
    assert weighed["model"]["objective"] == "foxes=0.25,leaves=0.75"
    for both, *rows in zip(scores, *alone, strict=True):
        for place, reward in enumerate(both["rewards"]):
            parts = [scale.standardise(row["rewards"][place]) for scale, row in zip(scales, rows, strict=True)]
            assert reward == pytest.approx(0.25 * parts[0] + 0.75 * parts[1], abs=1e-4)


def test_a_server_and_an_artifact_stand_side_by_side(
    trained: list[Artifact], url: str, data: dict[str, Path], tmp_path: Path
) -> None:
    arguments = ["evaluate", str(trained[0].folder), f"{url}#leaves", "--data", str(data["pairs"])]
    outcome = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert outcome.exit_code == 0, outcome.output
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## Against foxes" in page
    assert "## Agreement" in page


def test_a_server_with_several_rewards_asks_for_a_name(url: str, data: dict[str, Path]) -> None:
    outcome = CliRunner().invoke(app, ["evaluate", url, "--data", str(data["pairs"])])
    assert outcome.exit_code == 1
    assert ": foxes, leaves; or give --preferences" in outcome.stderr


@pytest.fixture(scope="module")
def duel(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A model that compares two answers."""
    folder = tmp_path_factory.mktemp("duel")
    changes = {"loss": {"method": "pair"}, "model": {"head": "tokens"}, "reading": {"max_length": 192}}
    artifact = train_reward(
        reward_run(tiny.base(folder / "base"), folder, name="duel", optimisation={"max_steps": 12}, **changes)
    )
    assert artifact is not None
    return artifact


@pytest.fixture(scope="module")
def duels(duel: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of it, beside a model that reads steps."""
    assert duel.manifest.base is not None
    proof = comparer(tmp_path_factory.mktemp("proof"), Path(duel.manifest.base.model), "proof", reads="steps")
    rewards = [RewardEntry(path=each.folder) for each in (duel, proof)]
    settings = Settings(rewards=rewards, dtype="float32", device="cpu")
    with hosting(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


@pytest.mark.parametrize("bench", ["pairs", "rewardbench", "rewardbench2"])
def test_comparisons_in_process_and_over_http_are_the_same(
    bench: str, duel: Artifact, duels: str, data: dict[str, Path], tmp_path: Path
) -> None:
    """Also where a comparison is too long, and where a prompt has many answers."""
    files: list[str | Path] = ["--bench", bench, "--data", data[bench]]
    if bench == "pairs":
        long = {"chosen": f"\n\nHuman: a\n\nAssistant: {LONG}", "rejected": "\n\nHuman: a\n\nAssistant: d"}
        (tmp_path / "long.json").write_text(json.dumps([long]))
        files += ["--data", tmp_path / "long.json"]
    here, here_scores = evaluated(tmp_path / "here", duel.folder, *files)
    there, there_scores = evaluated(tmp_path / "there", f"{duels}#duel", *files)
    for one, other in zip(here_scores, there_scores, strict=True):
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-4)
        alike = ("id", "digest", "scores", "credit", "truncated", "lengths")
        assert [one[key] for key in alike] == [other[key] for key in alike]
    assert values(here) == pytest.approx(values(there), abs=1e-3, nan_ok=True)
    assert here["notes"] == there["notes"]
    assert here["figures"]["flips"] == there["figures"]["flips"]
    assert here["model"]["comparisons"] == there["model"]["comparisons"]
    if bench == "pairs":
        assert [one["truncated"] for one in here_scores].count([True, True]) == 1
        assert here["figures"]["accuracy"]["value"] > 0.9


def test_what_a_server_cannot_compare_is_refused(duels: str, data: dict[str, Path]) -> None:
    for name, file, why in (
        ("duel", data["extra"], "a server compares answers to one prompt: evaluate"),
        ("proof", data["pairs"], "proof scores an answer step by step"),
    ):
        outcome = CliRunner().invoke(app, ["evaluate", f"{duels}#{name}", "--data", str(file)])
        assert outcome.exit_code == 1
        assert why in " ".join(outcome.stderr.split())
