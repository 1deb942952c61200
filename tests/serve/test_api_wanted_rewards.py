"""Rewards on demand on every way in: routes, dialects, batches and labels; their numbers and errors."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.artifacts import prove
from serve.border import served
from starlette.testclient import TestClient
from waiting import wait_until

from tureen.labelling.recipe import Recipe
from tureen_core.artifact import open_artifact, seal_artifact
from tureen_serve.api.batch_endpoints import BATCH_ENDPOINTS
from tureen_serve.api.reward_items import PreferencesBody, ScoreBody
from tureen_serve.api.text_bodies import ChatBody
from tureen_serve.app import load_engine
from tureen_serve.inference.engine import Engine
from tureen_serve.labelling.labeller import Labeller
from tureen_serve.settings import FamilyEntry, RewardEntry, Settings, load_settings
from tureen_serve.telemetry import Metrics

ITEM = {"prompt": "why?", "candidates": ["because", "leaves fall"]}
NAMES = ("calm", "dry", "funny")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base; in ``root`` three rewards, one of pairs and one of steps; beside it a reward and an expert."""
    folder = tmp_path_factory.mktemp("made")
    base = tiny.base(folder / "base")
    for seed, name in enumerate(NAMES):
        prove(tiny.reward(folder / "root" / name, base, name, seed))
    for name, kind in (("duel", "pair"), ("proof", "steps")):
        artifact = tiny.reward(folder / "root" / name, base, name, 5)
        manifest = artifact.manifest.model_copy(update={"input": kind})
        seal_artifact(artifact.folder, manifest)
    tiny.reward(folder / "helpful", base, "helpful", 7)
    tiny.expert(folder / "academy", base, "academy", 8)
    return folder


def settings(made: Path, **changes: Any) -> Settings:
    """Of a server with the root, one reward and one family."""
    own = {
        "rewards": [RewardEntry(path=made / "helpful")],
        "families": [FamilyEntry(name="tiny", experts=[made / "academy"])],
        "rewards_root": made / "root",
        "dtype": "float32",
        "device": "cpu",
    }
    return load_settings(**{**own, **changes})


def narrow(made: Path) -> float:
    """A bound in GiB with room for one adapter and no second one, on the base of the start."""
    return 1.5 * sum(path.stat().st_size for path in (made / "root/calm").glob("*.safetensors")) / 2**30


@contextmanager
def server(made: Path, **changes: Any) -> Iterator[TestClient]:
    chosen = settings(made, **changes)
    with served(load_engine(chosen, lambda _: None), aliases=chosen.aliases) as client:
        yield client


@pytest.fixture(scope="module")
def client(made: Path) -> Iterator[TestClient]:
    with server(made, aliases={"judge": "calm=0.5+helpful=0.5", "fun": "funny"}) as found:
        yield found


@pytest.fixture(scope="module")
def expected(made: Path) -> dict[str, list[float]]:
    """The raw rewards of :data:`ITEM`, of a server that has all models from its start."""
    entries = [RewardEntry(path=made / "helpful"), *(RewardEntry(path=made / "root" / name) for name in NAMES)]
    with served(load_engine(settings(made, rewards=entries, rewards_root=None), lambda _: None)) as found:
        return raws(found.post("/v1/score", json={"items": [ITEM]}).json())


def raws(reply: Any) -> dict[str, list[float]]:
    candidates = reply["data"][0]["candidates"]
    return {name: [each["scores"][name]["raw"] for each in candidates] for name in candidates[0]["scores"]}


def near(values: Any) -> Any:
    return pytest.approx(values, abs=1e-5)


# --------------------------------------------------------------------------- our own routes


def test_a_reward_that_is_named_has_the_numbers_of_one_that_is_loaded_at_the_start(
    client: TestClient, expected: dict[str, list[float]]
) -> None:
    for names in (["calm"], ["dry", "helpful"], ["funny", "calm", "dry"]):
        found = raws(client.post("/v1/score", json={"items": [ITEM], "rewards": names}).json())
        assert found == {name: near(expected[name]) for name in names}


def test_weights_name_rewards_too(client: TestClient, expected: dict[str, list[float]]) -> None:
    body = {"items": [ITEM], "preferences": {"calm": 0.25, "helpful": 0.75}}
    candidates = client.post("/v1/score", json=body).json()["data"][0]["candidates"]
    mixed = [0.25 * calm + 0.75 * helpful for calm, helpful in zip(expected["calm"], expected["helpful"], strict=True)]
    assert [each["reward"] for each in candidates] == near(mixed)


def test_a_request_without_names_uses_the_rewards_of_the_start_whatever_is_loaded(
    client: TestClient, expected: dict[str, list[float]]
) -> None:
    client.post("/v1/score", json={"items": [ITEM], "rewards": list(NAMES)})
    for path in ("/v1/score", "/v1/preferences"):
        assert set(client.post(path, json={"items": [ITEM]}).json()["fingerprint"]) == {"helpful"}
    assert client.post("/vllm/classify", json={"input": "hi"}).json()["model"] == "helpful"


def test_pairs_and_steps_are_read_by_rewards_on_demand(client: TestClient) -> None:
    labelled = client.post("/v1/preferences", json={"items": [ITEM], "rewards": ["duel"]})
    assert labelled.json()["fingerprint"].keys() == {"duel"}
    steps = {"prompt": "why?", "steps": ["because", "leaves fall"]}
    assert client.post("/v1/score", json={"items": [steps], "rewards": ["proof"]}).status_code == 200
    wrong = client.post("/v1/score", json={"items": [ITEM], "rewards": ["duel"]})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "wrong_input")


def test_without_rewards_of_the_start_a_request_must_name_one(made: Path) -> None:
    with server(made, rewards=[], families=[]) as client:
        error = client.post("/v1/score", json={"items": [ITEM]}).json()["error"]
        assert (error["param"], error["code"]) == ("rewards", "unknown_reward")
        assert "send `rewards` with names of: calm, dry, duel, funny, proof" in error["message"]
        missing = client.post("/vllm/classify", json={"input": "hi"})
        assert missing.status_code == 404
        assert "3 rewards are loaded and `model` is missing" in missing.text
        assert client.get("/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rewards": ["calm", "nobody"]}, "rewards[1]"),
        ({"preferences": {"nobody": 1}}, "preferences.nobody"),
        ({"rewards": ["nobody"], "preferences": {"calm": 1}}, "rewards[0]"),
    ],
)
def test_an_unknown_name_is_told_at_its_field(client: TestClient, body: dict[str, Any], param: str) -> None:
    reply = client.post("/v1/score", json={"items": [ITEM], **body})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (422, param, "unknown_reward")
    assert "known: calm, dry" in error["message"]


def test_rewards_on_demand_are_not_souped(client: TestClient) -> None:
    reply = client.post("/v1/score", json={"items": [ITEM], "preferences": {"calm": 1, "dry": 1}, "soup": True})
    assert reply.status_code == 422
    assert "can be souped" in reply.json()["error"]["message"]


def test_candidates_are_chosen_by_a_reward_on_demand(client: TestClient) -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 2,
        "candidates": {"n": 2, "preferences": {"calm": 1}, "select": "best"},
    }
    choice = client.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["rewards"].keys() == {"calm"}
    unknown = client.post("/v1/chat/completions", json={**body, "candidates": {"n": 2, "preferences": {"nobody": 1}}})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "candidates.preferences")


def test_the_list_says_what_is_loaded_and_what_could_be(made: Path) -> None:
    with server(made) as client:
        before = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
        assert {name for name, card in before.items() if card["loaded"]} == {"helpful", "tiny"}
        assert {name for name, card in before.items() if not card["loaded"]} == {*NAMES, "duel", "proof"}
        reply = client.post("/v1/score", json={"items": [ITEM], "rewards": ["calm"]}).json()
        after = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
        assert {name for name, card in after.items() if card["loaded"]} == {"helpful", "tiny", "calm"}
        assert after["calm"] == {**before["calm"], "loaded": True}
        assert after["calm"]["fingerprint"] == reply["fingerprint"]["calm"]
        assert client.get("/v1/models/dry").json()["loaded"] is False
        assert str(made) not in client.get("/v1/models").text


@pytest.mark.parametrize("name", ["helpful", "funny", "duel"])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
    ],
)
def test_a_rewards_name_where_text_is_asked_for_says_that_it_is_a_reward(
    client: TestClient, name: str, path: str, asked: dict[str, Any]
) -> None:
    reply = client.post(path, json={"model": name, **asked})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    says = f"{name} is a reward, which writes no text; send a policy as `model` (tiny), or score answers by /v1/score"
    assert reply.json()["error"]["message"] == says


# --------------------------------------------------------------------------- dialects


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("calm", ["calm"]),
        ("org/dry", ["dry"]),
        ("/checkpoints/funny", ["funny"]),
        ("fun", ["funny"]),
        ("calm+helpful", ["calm", "helpful"]),
    ],
)
def test_a_dialects_model_names_rewards_on_demand(
    client: TestClient, expected: dict[str, list[float]], model: str, names: list[str]
) -> None:
    talk = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]
    reply = client.post("/vllm/pooling", json={"messages": talk, "model": model, "use_activation": False})
    assert reply.json()["data"][0]["data"] == near([expected[name][0] for name in names])


def test_an_alias_may_mix_rewards_on_demand(client: TestClient, expected: dict[str, list[float]]) -> None:
    body = {"text_1": "why?", "text_2": ["because", "leaves fall"], "model": "judge", "use_activation": False}
    found = [each["score"] for each in client.post("/vllm/score", json=body).json()["data"]]
    assert found == near([0.5 * (a + b) for a, b in zip(expected["calm"], expected["helpful"], strict=True)])


def test_an_unknown_model_is_never_another_one(made: Path) -> None:
    with server(made) as client:  # one reward of the start, which alone would answer to every name
        reply = client.post("/vllm/classify", json={"input": "hi", "model": "helpfull"})
        assert reply.status_code == 404
        assert "no reward is called 'helpfull'" in reply.text


def test_dialects_list_what_a_model_can_be_called(client: TestClient) -> None:
    listed = {"helpful", *NAMES, "judge", "fun"}
    cards = client.get("/vllm/v1/models").json()["data"]
    assert {card["id"] for card in cards} == listed
    assert {card["max_model_len"] for card in cards} == {256}
    assert {card["id"] for card in client.get("/infinity/models").json()["data"]} == listed


def test_tokens_are_those_of_the_named_reward(client: TestClient) -> None:
    assert client.post("/vllm/tokenize", json={"prompt": "hi", "model": "dry"}).json()["max_model_len"] == 256


def test_a_name_that_two_folders_have_is_refused_with_the_reason(made: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made / "root", tmp_path / "root"))
    shutil.copytree(root / "calm", root / "calm-again")
    with server(made, rewards_root=root) as client:
        for path, body in (
            ("/v1/score", {"items": [ITEM], "rewards": ["calm"]}),
            ("/infinity/classify", {"input": ["hi"], "model": "calm"}),
        ):
            reply = client.post(path, json=body)
            assert reply.status_code == 422
            assert "two rewards are called 'calm', in calm and calm-again" in reply.text


# --------------------------------------------------------------------------- what cannot be loaded


def test_a_model_whose_probe_fails_is_refused_with_the_reason(made: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made / "root", tmp_path / "root"))
    prove(open_artifact(root / "calm"), off_by=1)
    with server(made, rewards_root=root) as client:
        for _ in range(2):
            reply = client.post("/v1/score", json={"items": [ITEM], "rewards": ["calm"]})
            error = reply.json()["error"]
            assert (reply.status_code, error["code"], error["param"]) == (422, "model_unusable", "rewards[0]")
            assert "the score of a probe differs: calm, probe 0" in error["message"]
        assert client.get("/health/ready").status_code == 200
        assert client.post("/v1/score", json={"items": [ITEM], "rewards": ["dry"]}).status_code == 200


def test_a_bound_that_is_too_small_for_a_model_is_named(made: Path) -> None:
    with server(made, rewards_memory_gib=2**-20) as client:
        reply = client.post("/tei/predict", json={"inputs": "hi", "model": "calm"})
        assert reply.status_code == 422
        assert "`rewards_memory_gib` is 9.54e-07; raise the bound" in reply.text


# --------------------------------------------------------------------------- batches, labels, and who stays


def run(engine: Engine, work: Any) -> Any:
    async def whole() -> Any:
        try:
            return await work
        finally:
            await engine.close()

    return asyncio.run(whole())


def test_a_chunk_may_name_more_models_than_fit_at_once(made: Path, expected: dict[str, list[float]]) -> None:
    names = ["calm", "dry", "helpful", "funny", "nobody", "dry", "calm", "funny", "calm"]
    bodies = [ScoreBody.model_validate({"items": [ITEM], "rewards": [name]}) for name in names]
    events: list[Any] = []
    engine = load_engine(settings(made, rewards_memory_gib=narrow(made)), events.append)
    answers = run(engine, BATCH_ENDPOINTS["/v1/score"].run(engine, Metrics(), bodies, 8))
    for name, answer in zip(names, answers, strict=True):
        if name == "nobody":
            assert (answer.status, answer.body["error"]["param"]) == (422, "rewards[0]")
        else:
            assert raws(answer.body) == {name: near(expected[name])}
    kinds = [getattr(each, "kind", "") for each in events]
    assert kinds.count("loaded") == 3  # each once, although they take turns in the chunk


def test_labels_and_chats_of_a_batch_take_turns_too(made: Path) -> None:
    engine = load_engine(settings(made, rewards_memory_gib=narrow(made)), lambda _: None)

    async def work() -> Any:
        labels = [PreferencesBody.model_validate({"items": [ITEM], "rewards": [name]}) for name in (*NAMES, "duel")]
        chats = [
            ChatBody.model_validate(
                {
                    "messages": [{"role": "user", "content": "hi"}],
                    "max_tokens": 1,
                    "candidates": {"n": 2, "preferences": {name: 1}},
                }
            )
            for name in NAMES
        ]
        return (
            await BATCH_ENDPOINTS["/v1/preferences"].run(engine, Metrics(), labels, 8),
            await BATCH_ENDPOINTS["/v1/chat/completions"].run(engine, Metrics(), chats, 1),
        )

    for answers in run(engine, work()):
        assert [answer.status for answer in answers] == [200] * len(answers), answers


def test_labels_without_a_server_load_on_demand(made: Path) -> None:
    asked = {"rewards": ["calm"]}
    with Labeller(settings(made, rewards=[], families=[]), asked, Recipe()) as labeller:
        assert set(labeller([ITEM], None).fingerprint) == {"calm"}
        assert labeller._engine.pool is not None
        assert [each.users for each in labeller._engine.pool._memory.models.values()] == [0]


def test_a_model_is_kept_until_the_reply_is_done_and_not_longer(made: Path) -> None:
    engine = load_engine(settings(made, rewards_memory_gib=narrow(made)), lambda _: None)

    async def work() -> None:
        pool = engine.pool
        assert pool is not None
        with engine.hold() as held, engine.hold() as other:
            await held.want({"calm": "rewards[0]"})
            assert "calm" not in other.rewards
            waiting = asyncio.create_task(other.want({"dry": "rewards[0]"}))
            await wait_until(lambda: any(each.leaving for each in pool._memory.models.values()))
            assert "calm" in held.rewards
            assert [name for each in pool.loaded for name in each.versions] == ["calm"]
            assert held._leases is not None
            held._leases.close()  # as when its reply was sent
            await waiting
            assert "dry" in other.rewards
        assert "calm" not in engine.rewards
        await wait_until(lambda: not pool._memory._tasks)
        assert [name for each in pool.loaded for name in each.versions] == ["dry"]

    run(engine, work())


def test_an_engine_that_is_not_held_loads_nothing(made: Path) -> None:
    engine = load_engine(settings(made), lambda _: None)
    with pytest.raises(RuntimeError, match="only an engine that is held"):
        run(engine, engine.want({"calm": "rewards[0]"}))
