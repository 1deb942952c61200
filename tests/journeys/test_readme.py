"""The README's blocks, run as they stand against the starter artifacts on the real SmolLM2."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tureen import Client
from tureen.errors import Unprocessable
from tureen.mixes import split_mix
from tureen_core.base import CACHE
from tureen_serve.app import create_app
from tureen_serve.batch_settings import FOLDER, BatchSettings
from tureen_serve.settings import STARTER, STARTER_PRESETS, ServerLimits, build_starter_settings, load_settings
from tureen_serve.starter import demo

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README)


SERVICE = (ROOT / "service" / "README.md").read_text()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the starter, with a plain reward model beside it."""
    port = demo.find_free_port()
    with demo.run_server(port, demo.write_plain_reward(tmp_path_factory.mktemp("plain") / demo.PLAIN)):
        yield f"http://127.0.0.1:{port}"


def test_the_first_command_stands_on_the_first_screen() -> None:
    assert README[: README.index("```bash")].count("\n") < 20
    assert BLOCKS[0] == ("bash", "make demo\n")
    assert README.count("\n") <= 140


def find_settings() -> str:
    """The service's example of a configuration file; the other block of YAML is a file of keys."""
    (block,) = [code for language, code in BLOCK.findall(SERVICE) if language == "yaml" and "limits:" in code]
    return str(block)


def test_the_configuration_file_can_be_loaded_and_names_what_it_loads(tmp_path: Path) -> None:
    block = find_settings()
    for name in ("models", "rewards"):
        (tmp_path / name).mkdir()
    (tmp_path / "bases" / "qwen").mkdir(parents=True)
    (tmp_path / "bases" / "qwen" / "config.json").touch()
    (tmp_path / "keys.yaml").touch()
    (tmp_path / "server.yaml").write_text(block)
    told = load_settings(tmp_path / "server.yaml")
    assert (Path(told.rewards[0].path), told.batches.folder) == (tmp_path / "rewards/helpful", tmp_path / "state")
    rewards = {entry.name or Path(entry.path).name for entry in told.rewards}
    aliased = {part.partition("=")[0] for spelled in told.aliases.values() for part in split_mix(spelled)}
    assert aliased == rewards
    experts = {each.path.name for each in told.families[0].experts}
    assert {*told.families[0].default, *told.families[0].presets["playful"]} <= experts
    commented = block.replace("# store:", "store:").replace("# files:", "files:")
    (tmp_path / "server.yaml").write_text(commented)
    assert load_settings(tmp_path / "server.yaml").batches.files_url == "s3://BUCKET/FOLDER"


def test_its_limits_are_the_defaults() -> None:
    block = find_settings()
    told = yaml.safe_load(block)
    assert ServerLimits(**told["limits"]) == ServerLimits()
    assert BatchSettings(**told["batches"] | {"folder": FOLDER}) == BatchSettings()
    assert f"`{FOLDER}`" in SERVICE
    assert f"`~/{CACHE.relative_to(Path.home())}`" in SERVICE


def test_every_url_for_a_client_is_one_of_the_servers() -> None:
    urls = re.findall(r"^\| .* \| `http://127\.0\.0\.1:8900(/?[a-z_0-9]*)`", SERVICE, re.MULTILINE)
    prefixes = {f"/{path.split('/')[1]}" for path in create_app(load_settings()).openapi()["paths"]}
    assert len(urls) == 11
    assert set(urls) - {""} <= prefixes


def test_the_starter_artifacts_are_small_and_complete() -> None:
    found = build_starter_settings()
    assert {Path(entry.path).name for entry in found["rewards"]} == {
        *("academy", "business", "entertainment", "literature"),
        *("helpful", "harmless"),
    }
    assert [each.path.name for each in found["families"][0].experts] == [
        "academy",
        "business",
        "entertainment",
        "literature",
    ]
    sizes = [path.stat().st_size for path in STARTER.rglob("*.safetensors")]
    assert len(sizes) == 10
    assert max(sizes) <= 2_000_000
    assert sum(sizes) <= 20_000_000


@pytest.mark.real
def test_its_python_runs(url: str) -> None:
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert len(blocks) >= 2
    environment = {**os.environ, "TUREEN_BASE_URL": url}
    for code in blocks:
        ours = code.replace("http://127.0.0.1:8900", url)
        outcome = subprocess.run(
            [sys.executable, "-c", ours], env=environment, capture_output=True, text=True, timeout=300
        )
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stdout.strip()


@pytest.mark.real
def test_its_commands_run(url: str, tmp_path: Path) -> None:
    binaries = str(Path(sys.executable).parent)
    environment = {**os.environ, "TUREEN_BASE_URL": url}
    block = next(code for language, code in BLOCKS if language == "bash" and "tureen chat" in code)
    ours = block.replace("http://127.0.0.1:8900", url).replace(".venv/bin", binaries)
    outcome = subprocess.run(
        ["bash", "-ec", ours], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert outcome.returncode == 0, outcome.stderr
    assert '"helpful"' in outcome.stdout


@pytest.mark.real
def test_a_plain_model_is_served_beside_the_starter(url: str) -> None:
    with Client(url) as client:
        cards = {card.id: card for card in client.models().data}
        answers = list(demo.ANSWERS.values())
        items = [{"prompt": demo.QUESTION, "candidates": answers}]
        found = client.score(items, rewards=[demo.OWN, demo.PLAIN]).data[0].candidates
        soup = client.chat(
            [{"role": "user", "content": demo.QUESTION}],
            preferences={"academy": 0.5, "literature": 0.5},
            candidates={"n": 2, "preferences": {demo.PLAIN: 1}},
            max_tokens=8,
        )
        with pytest.raises(Unprocessable, match=demo.PLAIN):
            client.score(items, preferences={demo.OWN: 0.5, demo.PLAIN: 0.5})
    assert {name for name, card in cards.items() if card.kind == "reward"} == {
        *(Path(entry.path).name for entry in build_starter_settings()["rewards"]),
        demo.PLAIN,
    }
    assert {"smollm2", *(f"smollm2:{name}" for name in STARTER_PRESETS)} <= set(cards)
    assert (cards[demo.OWN].calibrated, cards[demo.PLAIN].calibrated) == (True, False)
    pairs = [(each.scores[demo.OWN], each.scores[demo.PLAIN]) for each in found if each.scores]
    assert [plain.raw for _, plain in pairs] == pytest.approx([own.raw for own, _ in pairs], abs=1e-4)
    assert len({round(plain.raw, 2) for _, plain in pairs}) == len(answers)
    assert [plain.calibrated for _, plain in pairs] == [None] * len(answers)
    assert soup.choices[0].message.content


@pytest.mark.real
def test_the_demo_shows_scores_labels_and_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    demo.main()
    shown = capsys.readouterr().out
    tables = ("Scores of four answers", "A plain model beside our own", "Preference labels", "One prompt, five soups")
    for expected in (*tables, "make serve"):
        assert expected in shown
