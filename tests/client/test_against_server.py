"""The client and the command line against the real application over a socket, with tiny models."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from client.standin import serving
from typer.testing import CliRunner

from tureen import Chunks, Client, Conflict, InvalidRequest, Label, NotFound, TrlLabel, Unprocessable, cli
from tureen_serve.app import create_app
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.settings import FamilyEntry, RewardEntry, Settings

PAIR: dict[str, Any] = {
    "prompt": "Why do leaves fall?",
    "candidates": ["In autumn.", "The quick brown fox jumps over the lazy dog."],
}
EXPERTS = ("academy", "entertainment")
REWARDS = ("helpful", "harmless")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with two rewards and a family of two experts."""
    folder = tmp_path_factory.mktemp("served")
    base = tiny.base(folder / "base")
    rewards = [tiny.reward(folder / name, base, name, seed) for seed, name in enumerate(REWARDS, 1)]
    experts = [tiny.expert(folder / name, base, name, seed) for seed, name in enumerate(EXPERTS, 11)]
    settings = Settings(
        rewards=[RewardEntry(path=each.folder) for each in rewards],
        families=[FamilyEntry(name="tiny", base=str(base), experts=[each.folder for each in experts])],
        dtype="float32",
        device="cpu",
        batches=BatchSettings(folder=folder / "jobs", poll_seconds=0.1),
    )
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def raws(client: Client, **options: Any) -> list[list[dict[str, float]]]:
    reply = client.score([PAIR] * 3, **options)
    return [
        [{name: score.raw for name, score in (each.scores or {}).items()} for each in row.candidates]
        for row in reply.data
    ]


def test_scores_do_not_depend_on_how_the_client_splits_its_input(client: Client, url: str) -> None:
    whole = raws(client)
    assert set(whole[0][0]) == set(REWARDS)
    assert whole[0][0] != whole[0][1]
    with Client(url, chunks=Chunks(items=1)) as splitting:
        for one, other in zip(whole, raws(splitting), strict=True):
            for scores, same in zip(one, other, strict=True):
                assert same == pytest.approx(scores, abs=1e-4)


def test_preferences_weigh_the_rewards(client: Client) -> None:
    reply = client.score([PAIR], preferences={"helpful": 3.0, "harmless": 1.0})
    assert reply.preferences == {"harmless": 0.25, "helpful": 0.75}
    for candidate in reply.data[0].candidates:
        assert candidate.scores is not None
        weighed = 0.75 * candidate.scores["helpful"].scaled + 0.25 * candidate.scores["harmless"].scaled
        assert candidate.reward == pytest.approx(weighed)


def test_labels_agree_with_scores(client: Client) -> None:
    [label] = client.preferences([PAIR], rewards=["helpful"]).data
    assert isinstance(label, Label)
    rewards = [candidate.reward or 0.0 for candidate in label.candidates]
    assert label.chosen == max((0, 1), key=rewards.__getitem__)
    [row] = client.preferences([PAIR], rewards=["helpful"], format="trl").data
    assert isinstance(row, TrlLabel)
    assert row.chosen == [{"role": "assistant", "content": PAIR["candidates"][label.chosen]}]


def test_the_server_names_what_only_it_can_know(client: Client) -> None:
    with pytest.raises(Unprocessable, match="unknown reward 'humor'") as caught:
        client.score([PAIR], rewards=["helpful", "humor"])
    assert (caught.value.param, caught.value.code) == ("rewards[1]", "unknown_reward")
    assert caught.value.request_id
    with pytest.raises(NotFound, match="no policy is called 'large'"):
        client.chat("Hello", model="large")
    with pytest.raises(Conflict):
        client.score([PAIR], fingerprint="another")
    with pytest.raises(InvalidRequest) as refused:
        client.chat("Hello", preferences={"humor": 1.0}, stream=True)
    assert refused.value.param == "preferences.humor"


def test_bad_items_are_placed_in_the_whole_input(url: str) -> None:
    too_long = {"prompt": "Why?", "candidates": ["word " * 2000]}
    with Client(url, chunks=Chunks(items=2)) as client:
        with pytest.raises(Unprocessable) as caught:
            client.score([PAIR, PAIR, PAIR, too_long])
        assert caught.value.param == "items[3].candidates[0]"
        items = [PAIR, PAIR, {"prompt": "\ud800", "candidates": ["a"]}, too_long]
        reply = client.score(items, on_error="item")
    assert [row.error and row.error.param for row in reply.data] == [None, None, "items[2].prompt", None]
    error = reply.data[3].candidates[0].error
    assert error is not None
    assert error.param == "items[3].candidates[0]"


def test_chat_and_its_stream_say_the_same(client: Client) -> None:
    preferences = {"academy": 3.0, "entertainment": 1.0}
    reply = client.chat("Hello", preferences=preferences, max_tokens=8, temperature=0.0)
    assert reply.preferences == {"academy": 0.75, "entertainment": 0.25}
    assert reply.steering is not None
    assert reply.steering["method"] == "soup"
    assert set(reply.experts or ()) == set(EXPERTS)
    with client.chat("Hello", stream=True, preferences=preferences, max_tokens=8, temperature=0.0) as stream:
        assert "".join(chunk.text for chunk in stream) == reply.text


def test_completions_and_candidates(client: Client) -> None:
    assert len(client.complete(["One", "Two"], max_tokens=4).choices) == 2
    [choice] = client.chat("Hello", max_tokens=4, seed=1, candidates={"n": 2, "preferences": {"helpful": 1.0}}).choices
    assert choice.rewards is not None
    assert choice.reward == pytest.approx(choice.rewards["helpful"].calibrated)


def test_a_sweep_answers_each_mixture(client: Client) -> None:
    reply = client.sweep("Hello", cli.make_sweep_weights(*EXPERTS, 3), max_tokens=4, temperature=0.0)
    assert [choice.preferences for choice in reply.choices] == [
        {"academy": 1.0},
        {"academy": 0.5, "entertainment": 0.5},
        {"entertainment": 1.0},
    ]


def test_models_tell_what_is_loaded(client: Client) -> None:
    cards = {card.id: card for card in client.models().data}
    assert {cards[name].kind for name in REWARDS} == {"reward"}
    assert set(cards["tiny"].objectives) == set(EXPERTS)


def run(url: str, *arguments: str | Path) -> str:
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "--url", url])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_command_line_walks_through_everything(url: str, tmp_path: Path) -> None:
    assert "is ready" in run(url, "health")
    assert len(json.loads(run(url, "models", "--json"))["data"]) >= 3
    assert "In autumn." in run(url, "score", PAIR["prompt"], *PAIR["candidates"], "-p", "helpful=1")
    (tmp_path / "in.jsonl").write_text(json.dumps(PAIR) + "\n")
    assert "labelled 1" in run(url, "label", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--format", "trl")
    assert {"prompt", "chosen", "rejected"} <= set(json.loads((tmp_path / "out.jsonl").read_text()))
    run(url, "chat", "Hello", "-p", "academy=1", "--max-tokens", "4")
    sweep = ("sweep", "Hello", "--from", EXPERTS[0], "--to", EXPERTS[1], "--steps", "2", "--max-tokens", "4", "--score")
    rows = json.loads(run(url, *sweep, "--json"))
    assert [set(row["scores"]) for row in rows] == [set(REWARDS)] * 2


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    readme = Path(__file__).parents[2] / "clients" / "README.md"
    return re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_readmes_python_runs(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], block: str
) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", url)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_readmes_commands_run(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", url)
    monkeypatch.chdir(tmp_path)
    [lines] = blocks("json")
    (tmp_path / "items.jsonl").write_text(lines)
    choice = {"prompt": "Why do leaves fall?", "chosen": "Because days grow short.", "rejected": "No idea."}
    (tmp_path / "choices.jsonl").write_text(json.dumps(choice) + "\n")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("tureen ")]
    assert len(commands) == 11
    for command in commands:
        result = CliRunner().invoke(cli.app, shlex.split(command)[1:])
        assert (command, result.exit_code, result.stderr) == (command, 0, "")
        assert result.stdout
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2
