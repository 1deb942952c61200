"""Experts of others, served: their soups over HTTP against sums of whole weights in float64, and what is refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from foreign_experts import MERGED, open_base, save_full, save_lora, save_peft
from serve.border import served, wait_for_models
from starlette.testclient import TestClient

from tureen_core.artifact import open_artifact, read_weights
from tureen_core.base import load_tokenizer
from tureen_core.lora import Adapter, LoraPair
from tureen_core.template import Renderer
from tureen_serve.app import create_app, load_engine
from tureen_serve.runtimes.load import LoadError, LoadOptions, load_models
from tureen_serve.settings import FamilyEntry, load_settings

FLOAT32 = LoadOptions(dtype="float32", device="cpu")
ALL = {"energy": 1.0, "accept_energy": 0.999}
ASK = [{"role": "user", "content": "why do leaves fall?"}]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, what others trained on it, and an expert artifact."""
    folder = tmp_path_factory.mktemp("shelf")
    base = tiny.base(folder / "base")
    save_lora(base, folder / "rslora", 1, r=5, lora_alpha=7, use_rslora=True, rank_pattern={"v_proj": 2})
    save_lora(base, folder / "one-layer", 2, r=3, target_modules=["q_proj", "o_proj"], layers_to_transform=[1])
    save_peft(base, folder / "dora", MERGED["dora"], 3)
    save_full(base, folder / "whole", 4)
    tiny.expert(folder / "academy", base, "academy", 5)
    return folder


@pytest.fixture(scope="module")
def client(shelf: Path) -> Iterator[TestClient]:
    """A server of one family: two LoRAs, a DoRA and a whole model at all of their energy, and an artifact."""
    experts: dict[str, Any] = {name: shelf / name for name in ("rslora", "one-layer", "academy")}
    experts |= {name: {"path": shelf / name, **ALL} for name in ("dora", "whole")}
    families = [FamilyEntry(name="tiny", base=str(shelf / "base"), experts=experts)]
    settings = load_settings(families=families, dtype="float32", device="cpu")
    with served(load_engine(settings, lambda _: None)) as found:
        yield found


def deltas(shelf: Path, name: str) -> dict[str, torch.Tensor]:
    """What an expert adds to each weight, in float64, by PEFT's own merge or by the whole model's weights."""
    base = open_base(shelf / "base")
    if name == "whole":
        tuned = open_base(shelf / name)
    else:
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(open_base(shelf / "base").double(), shelf / name).merge_and_unload()
    own, others = base.state_dict(), tuned.state_dict()
    return {key: others[key].double() - own[key].double() for key in own if key.endswith("proj.weight")}


def summed(shelf: Path, weights: Mapping[str, float]) -> Any:
    """The base with Σ w·Δ in its weights, in float64."""
    model = open_base(shelf / "base").double()
    for name, weight in weights.items():
        for key, delta in deltas(shelf, name).items():
            model.get_parameter(key).data += weight * delta
    return model


@torch.no_grad()
def greedy(model: Any, ids: list[int], count: int) -> list[float]:
    """Log-probabilities of the likeliest tokens, one after another."""
    said = []
    for _ in range(count):
        value, token = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1).max(0)
        said.append(float(value))
        ids = [*ids, int(token)]
    return said


def chat(client: TestClient, weights: Mapping[str, float], **more: Any) -> Any:
    body = {"model": "tiny", "messages": ASK, "max_tokens": 6, "temperature": 0, "logprobs": True, **more}
    reply = client.post("/v1/chat/completions", json={**body, "preferences": weights})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["logprobs"]["content"]


SOUPS: list[dict[str, float]] = [
    {"rslora": 1.0},
    {"dora": 1.0},
    {"whole": 1.0},
    {"rslora": 0.6, "one-layer": 0.4},
    {"dora": 0.5, "whole": 0.5},
    {"whole": 0.3, "academy": 0.3, "one-layer": 0.4},
]


@pytest.mark.parametrize("weights", SOUPS, ids=lambda soup: "+".join(soup))
def test_a_soup_is_the_base_with_the_sum_of_what_its_experts_changed(
    shelf: Path, client: TestClient, weights: dict[str, float]
) -> None:
    found = [each["logprob"] for each in chat(client, weights)]
    base = shelf / "base"
    ids = Renderer(load_tokenizer(base), tiny.reading(base)).tokenize_prompt(ASK)
    assert found == pytest.approx(greedy(summed(shelf, weights), ids, len(found)), abs=1e-4)
    assert abs(found[0] - greedy(open_base(base), ids, 1)[0]) > 1e-3


def test_models_lists_the_family_and_its_experts(client: TestClient) -> None:
    (card,) = [each for each in client.get("/v1/models").json()["data"] if each["kind"] == "policy"]
    assert (card["id"], card["base"]) == ("tiny", "base")
    assert sorted(card["objectives"]) == ["academy", "dora", "one-layer", "rslora", "whole"]
    assert client.get("/health/ready").status_code == 200


# --------------------------------------------------------------------------- loading


def load(shelf: Path, experts: Any, **fields: Any) -> Any:
    family = FamilyEntry(**{"name": "tiny", "base": str(shelf / "base"), "experts": experts, **fields})
    return load_models([], [family], FLOAT32, probes=None)


def refusal(shelf: Path, experts: Any, **fields: Any) -> str:
    with pytest.raises(LoadError) as caught:
        load(shelf, experts, **fields)
    return str(caught.value)


def test_an_expert_of_others_is_proven_on_its_probes(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(shelf, {"rslora": shelf / "rslora"}).failure is None
    whole = read_weights

    def weaken(artifact: Any) -> Any:
        adapter, head = whole(artifact)
        pairs = {path: LoraPair(each.a, each.b, each.scale * 0.9) for path, each in adapter.modules.items()}
        return Adapter(adapter.name, pairs), head

    monkeypatch.setattr("tureen_serve.runtimes.experts.read_weights", weaken)
    failure = load(shelf, {"rslora": shelf / "rslora"}).failure
    assert failure is not None
    assert failure.startswith("rslora, probe ")


def test_a_server_says_why_an_expert_of_others_is_not_served(shelf: Path) -> None:
    families = [FamilyEntry(name="tiny", base=str(shelf / "base"), experts=[{"path": shelf / "whole", "name": "w"}])]
    bad = families[0].model_copy(update={"experts": [families[0].experts[0].model_copy(update={"rank": 1})]})
    app = create_app(load_settings(families=[bad], dtype="float32", device="cpu"))
    with TestClient(app) as client:
        wait_for_models(app)
        reply = client.get("/health/ready")
    assert reply.status_code == 503
    assert "low-rank terms of rank 1 at most" in reply.text


def test_the_base_may_be_that_of_an_artifact_beside_it(shelf: Path) -> None:
    family = load(shelf, [shelf / "academy", {"path": shelf / "rslora", "name": "funny"}], base=None).policies[0].family
    assert list(family.experts) == ["academy", "funny"]
    assert family.experts["funny"].manifest.base == open_artifact(shelf / "academy").manifest.base
    assert family.experts["funny"].folder == shelf / "rslora"


def test_readings_that_make_the_same_prompts_may_stand_in_one_family(shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "poetry"
    tiny.expert(folder, shelf / "base", "poetry", 6)
    other = open_artifact(folder).manifest.reading
    assert other.max_length != 1024
    assert load(shelf, [folder, {"path": shelf / "rslora", "name": "funny"}]).failure is None


def test_the_same_folder_has_the_same_fingerprint_again(shelf: Path) -> None:
    first, again = (load(shelf, {"funny": shelf / "rslora"}).policies[0].family.fingerprint for _ in range(2))
    assert first == again
    assert first != load(shelf, {"funny": shelf / "one-layer"}).policies[0].family.fingerprint


def test_what_cannot_be_served_is_named(shelf: Path, tmp_path: Path) -> None:
    assert "families.tiny.base: name the base" in refusal(shelf, {"funny": shelf / "rslora"}, base=None)
    assert "rslora has no tureen.json; if others trained it, give it a `name`" in refusal(shelf, [shelf / "rslora"])
    assert "two experts for 'academy'" in refusal(
        shelf, [shelf / "academy", {"path": shelf / "rslora", "name": "academy"}]
    )
    assert "academy is an artifact, whose rank was chosen" in refusal(shelf, {"x": {"path": shelf / "academy", **ALL}})
    assert "funny: " in refusal(shelf, {"funny": tmp_path})
    other = tiny.base(tmp_path / "other", seed=9)
    assert "funny: it was trained on" in refusal(shelf, {"funny": shelf / "rslora"}, base=str(other))


def test_too_little_memory_is_told_with_what_to_do(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("of the device")

    monkeypatch.setattr("tureen_core.experts.import_expert.import_expert", fill)
    assert "cpu has too little memory to import" in refusal(shelf, {"funny": shelf / "rslora"})
    assert "tureen-train import" in refusal(shelf, {"funny": shelf / "rslora"})
