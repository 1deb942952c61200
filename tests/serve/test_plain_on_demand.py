"""Plain models in a rewards root: each form that needs no flag is loaded on demand with its library's own numbers."""

import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import classifiers
import judging
import plain_folders
import pytest
import tiny
from client.standin import serving
from serve.artifacts import prove
from serve.layouts import LAYOUTS, Layout, make_conversations
from serve.reward_adapters import write_adapter
from transformers import AutoTokenizer

from tureen import Client
from tureen_core import base
from tureen_core.plain.armorm import OBJECTIVES
from tureen_core.plain.templates import TEMPLATES
from tureen_serve.app import create_app, load_engine
from tureen_serve.inference.pooled_model import GIB
from tureen_serve.runtimes.footprint import count_weights
from tureen_serve.settings import RewardEntry, Settings, load_settings

CLOSE = 1e-4
PUBLISHED = sorted(set(LAYOUTS) - {"nemotron"})
STEPS = [{"prompt": "What is 2 + 3?", "steps": ["2 + 3 = 5.", "So it is 5."]}]
TALKS = [{"messages": turns} for turns in make_conversations(12) if len(turns) == 2]
# folder → the names of its rewards
CONVERSATIONS = {
    "trl": ["trl"],
    "traits": ["clear", "true"],
    "two": ["two-0", "two-1"],
    "normalised": ["normalised"],
    "warm": ["warm"],
    "cold": ["cold"],
    "encoder": ["encoder"],
    "imported": ["imported"],
}
PROCESS = {"qwen": ["qwen"], "labelled": ["labelled"], "valued": ["valued"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Layout]]:
    """A root with all of them, and the layouts, whose references are independent of any library."""
    folder = tmp_path_factory.mktemp("made")
    root = folder / "root"
    layouts = {name: LAYOUTS[name](root / name) for name in PUBLISHED}
    plain_folders.classifier(root / "trl", 1)
    plain_folders.classifier(root / "traits", 2, labels=2, id2label={0: "clear", 1: "true"})
    plain_folders.classifier(root / "two", 3, labels=2)
    plain_folders.openrlhf(root / "normalised", 4)
    below = tiny.base(folder / "base")
    write_adapter(root / "warm", below, 5)
    write_adapter(root / "cold", Path(shutil.copytree(below, folder / "copy")), 6)
    classifiers.write_model(root / "encoder", "bert", seed=7)
    tok = AutoTokenizer.from_pretrained(root / "encoder")
    tok.chat_template = TEMPLATES["roles"]
    tok.save_pretrained(root / "encoder")
    prove(tiny.full_reward(root / "imported", below, "reward", 8))
    judging.write_qwen(root / "qwen")
    judging.write_labelled(root / "labelled")
    judging.write_valued(root / "valued")
    return root, layouts


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def client(made: tuple[Path, dict[str, Layout]]) -> Iterator[Client]:
    """A server of the root with room for about three of the models."""
    root, _ = made
    room = 3.5 * max(4 * count_weights(each) for each in root.iterdir()) / GIB
    settings = Settings(rewards_root=root, rewards_memory_gib=room, dtype="float32", device="cpu")
    with serving(create_app(settings), lifespan="on") as address, Client(address) as found:
        found.wait_until_ready(100)
        yield found


def read_rows(client: Client, items: list[dict[str, Any]], rewards: list[str]) -> list[list[float]]:
    """The raw rewards of each item's only answer, by reward."""
    found = client.score(items, rewards=rewards).data
    rows = []
    for item in found:
        (candidate,) = item.candidates
        assert candidate.scores is not None, candidate
        assert all(candidate.scores[name].calibrated is None for name in rewards if name != "imported")
        rows.append([candidate.scores[name].raw for name in rewards])
    return rows


def read_steps(client: Client, reward: str) -> list[float]:
    reply = client.score(STEPS, rewards=[reward])
    return [each.scores[reward].raw for each in reply.data[0].candidates if each.scores]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layouts_have_the_numbers_of_the_published_code(
    client: Client, made: tuple[Path, dict[str, Layout]], name: str
) -> None:
    layout = made[1][name]
    rewards = [*OBJECTIVES, "overall"] if name == "armorm" else [name]
    wanted = [layout.score(layout.encode(item["messages"])) for item in TALKS]
    assert read_rows(client, TALKS, rewards) == [pytest.approx(row, abs=CLOSE) for row in wanted]


def test_every_model_has_the_numbers_that_it_has_when_it_is_named_at_the_start(
    client: Client, made: tuple[Path, dict[str, Layout]]
) -> None:
    """All at once, so that models come and go meanwhile."""
    root = made[0]
    names = {**{name: [name] for name in PUBLISHED if name != "armorm"}, **CONVERSATIONS, **PROCESS}
    entries = [
        RewardEntry(path=root / folder, objectives=() if folder == "imported" else rewards)
        for folder, rewards in names.items()
        if folder != "imported"
    ]
    imported = RewardEntry(path=root / "imported", name="imported")
    settings = Settings(rewards=[*entries, imported], dtype="float32", device="cpu")

    def ask(server: Client, folder: str) -> Any:
        if folder in PROCESS:
            return read_steps(server, folder)
        return read_rows(server, TALKS, names[folder])

    with serving(create_app(settings), lifespan="on") as address, Client(address) as started:
        started.wait_until_ready(100)
        wanted = {folder: ask(started, folder) for folder in names}
    order = random.Random(5).sample(sorted(names) * 2, 2 * len(names))
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda folder: ask(client, folder), order))
    for folder, rows in zip(order, found, strict=True):
        assert rows == [pytest.approx(each, abs=1e-5) for each in wanted[folder]], folder


def test_models_are_listed_with_the_names_that_requests_use(client: Client) -> None:
    client.score(TALKS[:1], rewards=["trl"])
    cards = {card.id: card for card in client.models().data}
    expected = {name for names in [*CONVERSATIONS.values(), *PROCESS.values()] for name in names}
    assert set(cards) == expected | set(PUBLISHED) - {"armorm"} | {*OBJECTIVES, "overall"}
    assert all(card.calibrated is False for name, card in cards.items() if name != "imported")
    assert cards["imported"].calibrated is True
    trl = cards["trl"]
    assert (trl.loaded, trl.objectives, trl.max_length) == (True, ["trl"], 512)
    assert trl.fingerprint == client.score(TALKS[:1], rewards=["trl"]).fingerprint["trl"]
    others = [card for card in cards.values() if not card.loaded and card.id != "imported"]
    assert others
    assert {(card.fingerprint, card.version) for card in others} == {(None, None)}
    assert {card.base for card in others} <= {None, "base", "copy"}


def test_adapters_of_one_base_share_its_weights_on_demand_too(made: tuple[Path, dict[str, Layout]]) -> None:
    root = made[0]
    own = 4 * max(count_weights(root / name) for name in ("warm", "cold"))
    below = 4 * count_weights(root.parent / "base")
    room = (2.5 * own + below) / GIB  # for both, on one copy of the base
    settings = Settings(rewards_root=root, rewards_memory_gib=room, dtype="float32", device="cpu")
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(100)
        for name in ("warm", "cold"):
            client.score(TALKS[:1], rewards=[name])
        assert {card.id for card in client.models().data if card.loaded} == {"warm", "cold"}


def test_a_model_of_the_start_is_not_offered_twice(
    made: tuple[Path, dict[str, Layout]], caplog: pytest.LogCaptureFixture
) -> None:
    root = made[0]
    settings = load_settings(
        rewards=[RewardEntry(path=root / "trl", name="helpful"), RewardEntry(path=root / "imported", name="kept")],
        rewards_root=root,
        dtype="float32",
        device="cpu",
    )
    engine = load_engine(settings, lambda _: None)
    assert engine.pool is not None
    assert list(engine.rewards) == ["helpful", "kept"]
    assert {"trl", "imported"}.isdisjoint(engine.pool.offered)
    assert "not offered" not in caplog.text
