"""``tureen weights`` and the client's method, against the application over an engine that counts words."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.standin import serving
from serve.border import application
from serve.counting import CONTEXT, CountingEngine
from typer.testing import CliRunner, Result

from tureen import AsyncClient, Client, cli
from tureen.errors import Unprocessable

CALM = {"prompt": "hi", "chosen": "calm calm calm", "rejected": "funny"}
FUNNY = {"prompt": "hi", "chosen": "funny funny", "rejected": "calm calm"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(application(CountingEngine()), lifespan="on") as address:
        with Client(address) as client:
            client.wait_until_ready(60)
        yield address


def run(url: str, folder: Path, *rows: object, flags: tuple[str, ...] = ()) -> Result:
    path = folder / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(cli.app, ["weights", str(path), "--url", url, *flags], env={"COLUMNS": "200"})


def test_weights_are_a_table_and_a_preset(url: str, tmp_path: Path) -> None:
    result = run(url, tmp_path, CALM, CALM, FUNNY, flags=("--preset", "quiet", "--width", "0.1"))
    assert result.exit_code == 0, result.output
    assert "95% interval" in result.output
    assert "3 choices, of which the weights explain" in result.output
    assert "more choices make all intervals 0.1 wide" in result.output
    assert "presets: {quiet: {calm: 0." in result.output


def test_weights_are_the_reply_as_json(url: str, tmp_path: Path) -> None:
    result = run(url, tmp_path, CALM, CALM, flags=("--json", "--level", "0.8"))
    with Client(url) as client:
        reply = client.fit_preferences([CALM, CALM], level=0.8)
    assert json.loads(result.output) == json.loads(reply.model_dump_json())
    assert reply.weights["calm"] > 0.5


def test_an_error_names_the_line(url: str, tmp_path: Path) -> None:
    result = run(url, tmp_path, CALM, {**CALM, "rejected": "word " * CONTEXT})
    assert result.exit_code == 1
    assert "choices.jsonl:2: the text has" in result.output


def test_alike_rewards_say_what_to_send(url: str, tmp_path: Path) -> None:
    alike = {"chosen_rewards": {"a": 1, "b": 1}, "rejected_rewards": {"a": 0, "b": 0}}
    assert "send pairs in which one objective is better" in run(url, tmp_path, *[alike] * 20).output


def test_the_asynchronous_client_fits_too_and_pairs_are_checked_before_they_are_sent(url: str) -> None:
    async def ask() -> float:
        async with AsyncClient(url) as client:
            return (await client.fit_preferences(iter([CALM, FUNNY]))).level

    assert asyncio.run(ask()) == 0.95
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unprocessable, match=r"pairs\[1\]"):
        client.fit_preferences([CALM, {"prompt": "hi"}])
