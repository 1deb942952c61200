"""Rewards-in-Context from recipe to HTTP: what was trained is proven, served, and asked for by its tags."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.border import wait_for_models
from starlette.testclient import TestClient
from train.tiny_ric import ric_run

from tureen_core.artifact import Artifact, open_artifact
from tureen_core.base import load_tokenizer
from tureen_core.reward_tags import tag_messages
from tureen_core.steering import TagSteering
from tureen_core.template import Renderer
from tureen_serve.app import create_app
from tureen_serve.settings import FamilyEntry, load_settings
from tureen_train.policies.run import train_policy

ASK = [{"role": "user", "content": "why do leaves fall?"}]
WAYS: dict[str, dict[str, Any]] = {
    "lora": {},
    "tokens": {"model": {"lora": None}, "policy": {"tokens": "special"}},
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A LoRA with tags of text, and whole weights with a token of its own for each tag."""
    folder = tmp_path_factory.mktemp("ric")
    base, made = tiny.base(folder / "base"), {}
    for name, way in WAYS.items():
        (folder / name).mkdir()
        policy = {"online": None, **way.get("policy", {})}
        run = ric_run(base, folder / name, **{**way, "policy": policy})
        assert train_policy(run) is not None
        made[name] = open_artifact(Path(run.output) / "artifact")
    return made


@pytest.fixture(scope="module")
def client(artifacts: dict[str, Artifact]) -> Iterator[TestClient]:
    families = [FamilyEntry(name=name, policy=artifact.folder) for name, artifact in artifacts.items()]
    app = create_app(load_settings(families=families, dtype="float32", device="cpu"))
    with TestClient(app) as found:
        wait_for_models(app)
        assert found.get("/health/ready").json()["status"] == "ready"  # the probes hold
        yield found


@pytest.mark.parametrize("name", list(WAYS))
def test_what_was_trained_is_asked_for_by_its_tags(
    name: str, artifacts: dict[str, Artifact], client: TestClient
) -> None:
    """The prompt's tokens are those that training renders, also where a tag is one token."""
    manifest = artifacts[name].manifest
    steering = manifest.steering
    assert isinstance(steering, TagSteering)
    most = {each.name: each.high for each in steering.objectives}
    body = {"model": name, "messages": ASK, "max_tokens": 6, "temperature": 0}
    asked = client.post("/v1/chat/completions", json={**body, "desired_rewards": most}).json()
    tokenizer = load_tokenizer(Path(manifest.base.model) if manifest.base else artifacts[name].folder)
    ids = Renderer(tokenizer, manifest.reading).tokenize_prompt(tag_messages(ASK, most, steering))
    assert asked["usage"]["prompt_tokens"] == len(ids)
    own = [tokenizer.convert_tokens_to_ids(f"<rm{at}_score>") for at in (1, 2)]
    assert [each for each in ids if each in own] == (own if name == "tokens" else [])
    mapped = client.post(
        "/v1/chat/completions", json={**body, "preferences": dict.fromkeys(most, 1), "mapping": "linf"}
    ).json()
    assert mapped["steering"]["desired_rewards"] == asked["steering"]["desired_rewards"] == most
    assert mapped["choices"][0]["message"] == asked["choices"][0]["message"]
    assert mapped["experts"] == {manifest.name: manifest.version}
