"""``tureen models`` and ``client.reward_models`` against the real application over a socket, with tiny models."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.standin import serving
from serve.changing import ITEMS, make_versions
from typer.testing import CliRunner, Result
from waiting import block_until

from tureen import AsyncClient, Client, Conflict, NotFound, Unprocessable, cli
from tureen_serve.app import create_app
from tureen_serve.settings import load_settings


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = make_versions(tmp_path_factory.mktemp("versions"))
    settings = load_settings(config, load_roots=[config.parent / "models"])
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def run(url: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["models", *map(str, arguments), "--url", url])


def test_a_reward_is_shadowed_promoted_and_unloaded_on_the_command_line(url: str) -> None:
    with Client(url) as client:
        old = client.score(ITEMS).fingerprint["helpful"]
        begun = run(url, "shadow", "helpful", "--path", "helpful-2", "--share", "1")
        assert begun.exit_code == 0, begun.stderr
        client.score(ITEMS, rewards=["helpful"])
        block_until(lambda: client.reward_models.report_shadow("helpful").compared == 2)
        table = run(url, "shadow", "helpful").stdout
        for said in (old, "pairs ordered the same way", "of 1", "mean difference", "σ", "population stability"):
            assert said in table
        report = json.loads(run(url, "shadow", "helpful", "--json").stdout)
        assert (report["share"], report["comparisons"][0]["texts"]) == (1, 2)
        promoted = run(url, "load", "helpful", "--promote")
        assert report["fingerprint"] in promoted.stdout
        assert "promoted" in promoted.stdout
        assert client.score(ITEMS).fingerprint["helpful"] == report["fingerprint"]
        ended = run(url, "shadow", "helpful", "--end")
        assert (ended.exit_code, "has no shadow" in ended.stderr) == (1, True)
        added = json.loads(run(url, "load", "merry", "--path", "calm", "--rename", "--json").stdout)
        assert (added["action"], added["rewards"], added["replaced"]) == ("loaded", ["merry"], None)
        assert "merry" in run(url).stdout
        assert "unloaded" in run(url, "unload", "merry").stdout
        assert "merry" not in run(url).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["load", "helpful", "--path", "off"], "the score of a probe differs"),
        (["load", "helpful", "--path", "calm"], "scores calm, not helpful"),
        (["load", "nobody"], "no reward is called 'nobody'"),
        (["unload", "tiny"], "tiny is a policy"),
        (["shadow", "helpful"], "has no shadow"),
    ],
)
def test_what_is_refused_is_said_and_the_status_is_one(url: str, arguments: list[str], says: str) -> None:
    result = run(url, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


def test_flags_that_contradict_each_other(url: str) -> None:
    assert "exclude each other" in run(url, "shadow", "helpful", "--path", "calm", "--end").stderr
    assert "after `load`" in CliRunner().invoke(cli.app, ["models", "--json", "load", "helpful", "--url", url]).stderr


def test_errors_have_their_classes_and_codes(url: str) -> None:
    with Client(url) as client:
        for kind, code, name, path in (
            (Unprocessable, "path_not_allowed", "helpful", "/etc"),
            (NotFound, "model_not_found", "no body", None),
            (Conflict, "model_fixed", "tiny", None),
        ):
            with pytest.raises(kind) as caught:
                client.reward_models.load(name, path)
            assert caught.value.code == code
        with pytest.raises(Unprocessable, match="share"):
            client.reward_models.begin_shadow("helpful", "helpful-2", 2.0)


def test_the_asynchronous_client_does_the_same(url: str) -> None:
    async def work() -> None:
        async with AsyncClient(url) as client:
            changed = await client.reward_models.load("helpful", "helpful-3")
            assert (await client.score(ITEMS)).fingerprint["helpful"] == changed.fingerprint
            begun = await client.reward_models.begin_shadow("helpful", "helpful-2")
            assert (await client.reward_models.report_shadow("helpful")).fingerprint == begun.fingerprint
            assert (await client.reward_models.end_shadow("helpful")).share == 0.1
            with pytest.raises(NotFound):
                await client.reward_models.unload("nobody")

    asyncio.run(work())
