"""Reward models in published layouts, served over HTTP: each answer is what the published code computes."""

from collections.abc import Iterator

import pytest
from client.standin import serving
from serve.layouts import LAYOUTS, Layout, make_conversations

from tureen import Client
from tureen.wire import ItemScore
from tureen_core.plain.armorm import OBJECTIVES
from tureen_serve.app import create_app
from tureen_serve.runtimes.sources import open_source
from tureen_serve.settings import RewardEntry, Settings

ALLOWED = 1e-4


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    folder = tmp_path_factory.mktemp("layouts")
    return {name: make(folder / name) for name, make in LAYOUTS.items()}


@pytest.fixture(scope="module")
def client(layouts: dict[str, Layout], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    cache = tmp_path_factory.mktemp("cache")
    rewards = [
        RewardEntry(path=each.folder, name=None if name == "armorm" else name, **each.options)
        for name, each in layouts.items()
    ]
    for entry in rewards:
        open_source(entry, cache)
    settings = Settings(rewards=rewards, dtype="float32", device="cpu", cache=cache)
    with serving(create_app(settings), lifespan="on") as address, Client(address) as found:
        found.wait_until_ready(100)
        yield found
    assert {each.name for each in (cache / "plain").glob("*/*")} == {"deepspeed-chat", "internlm2", "starling"}


def read_raw(item: ItemScore, reward: str) -> float:
    (candidate,) = item.candidates
    assert candidate.scores is not None, candidate
    return candidate.scores[reward].raw


@pytest.mark.parametrize("name", LAYOUTS)
def test_http_answers_with_the_rewards_of_the_published_code(
    client: Client, layouts: dict[str, Layout], name: str
) -> None:
    layout, conversations = layouts[name], make_conversations()
    wanted = [layout.score(layout.encode(turns)) for turns in conversations]
    rewards = [*OBJECTIVES, "overall"] if name == "armorm" else [name]
    scored = client.score([{"messages": turns} for turns in conversations], rewards=rewards).data
    found = [[read_raw(each, reward) for reward in rewards] for each in scored]
    assert found == [pytest.approx(each, abs=ALLOWED) for each in wanted]
    assert len({round(row[-1], 3) for row in wanted}) > 40  # the conversations differ by much more than what is allowed
