"""From a recipe to a served model: what training computed is what HTTP answers, and a soup is its merge."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import tiny
import torch
from client.standin import serving
from train.tiny_ric import ric_run
from train.tiny_runs import expert_recipe, records, reward_recipe
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tureen import Client
from tureen.records.reading import Reading
from tureen_core.artifact import Artifact, open_artifact, read_weights
from tureen_core.base import load_tokenizer
from tureen_core.checkpoint_merge import merge_checkpoint
from tureen_core.soup import concatenate_adapters
from tureen_core.template import Renderer
from tureen_serve.__main__ import app as serve
from tureen_serve.app import create_app
from tureen_serve.settings import FamilyEntry, RewardEntry, Settings
from tureen_train.__main__ import app as train
from tureen_train.config import format_recipe, resolve_recipe
from tureen_train.networks.reward_reader import RewardReader

RUNNER = CliRunner()
PROMPT = [{"role": "user", "content": "why do leaves fall?"}]
WEIGHTS: list[dict[str, float]] = [
    {"foxes": 1.0},
    {"leaves": 1.0},
    {"foxes": 0.25, "leaves": 0.75},
    {"foxes": 1.5, "leaves": -0.5},
    {"foxes": 0.0, "leaves": 0.0},
]


@dataclass(frozen=True)
class Trained:
    """What the command line made of two recipes."""

    base: Path
    data: Path
    reward: Artifact
    experts: dict[str, Artifact]


def run(recipe: dict[str, Any], folder: Path) -> Artifact:
    """Train by the command line, in this process."""
    folder.mkdir()
    file = folder / "recipe.yaml"
    file.write_text(format_recipe(resolve_recipe({**recipe, "output": str(folder / "run")})))
    outcome = RUNNER.invoke(train, ["run", str(file)])
    assert outcome.exit_code == 0, outcome.output
    return open_artifact(folder / "run" / "artifact")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    base = tiny.base(folder / "base")
    experts = {}
    for name, seed in (("foxes", 7), ("leaves", 8)):
        recipe = expert_recipe(base, folder, optimisation={"seed": seed, "learning_rate": 2e-2}, family="tiny")
        experts[name] = run({**recipe, "name": name, "objective": name}, folder / f"expert-{name}")
    reward = run(reward_recipe(base, folder), folder / "reward")
    return Trained(base, records(folder), reward, experts)


@pytest.fixture(scope="module")
def url(trained: Trained) -> Iterator[str]:
    settings = Settings(
        rewards=[RewardEntry(path=trained.reward.folder)],
        families=[FamilyEntry(name="tiny", experts=[each.folder for each in trained.experts.values()])],
        dtype="float32",
        device="cpu",
    )
    with serving(create_app(settings), lifespan="on") as address, Client(address) as client:
        client.wait_until_ready(300)
        yield address


def test_check_proves_every_artifact(trained: Trained) -> None:
    for artifact in (trained.reward, *trained.experts.values()):
        outcome = RUNNER.invoke(serve, ["check", str(artifact.folder), "--json", "--dtype", "float32"])
        assert outcome.exit_code == 0, outcome.output
        assert '"holds": true' in outcome.output


def test_scores_over_http_are_the_trainers_own(trained: Trained, url: str) -> None:
    """Float32 within 1e-4, whatever the batch, its order, or whether the prompt was shared."""
    reader = RewardReader(trained.reward.folder, trained.base, trained.reward.manifest.reading)
    found = list(Reading(trained.data))
    wanted = [[row[0] for row in reader.score_conversations(record.conversations)] for record in found]
    items = [
        {"prompt": list(record.prompt), "candidates": [list(answer) for answer in record.answers]} for record in found
    ]
    with Client(url) as client:
        together = client.score(items)
        backwards = client.score(items[::-1])
        alone = [client.score([{"messages": list(record.conversations[0])}]) for record in found[:4]]
    for number, record in enumerate(wanted):
        for item in (together.data[number], backwards.data[-1 - number]):
            raws = [candidate.scores["foxes"].raw for candidate in item.candidates if candidate.scores]
            assert raws == pytest.approx(record, abs=1e-4)
    for reply, record in zip(alone, wanted, strict=False):
        (candidate,) = reply.data[0].candidates
        assert candidate.scores is not None
        assert candidate.scores["foxes"].raw == pytest.approx(record[0], abs=1e-4)


def test_a_long_prompt_is_computed_once_for_its_answers(url: str) -> None:
    """Longer than a block of any runtime's cache, which knows whole blocks only."""
    with Client(url) as client:
        (item,) = client.score([{"prompt": "zqxj" * 9, "candidates": ["a", "b", "c"]}]).data
    cached = sorted(candidate.cached_tokens for candidate in item.candidates)
    assert cached[0] == 0
    assert cached[1] == cached[2] >= 32


def test_labels_prefer_what_training_preferred(trained: Trained, url: str) -> None:
    found = [record for record in Reading(trained.data) if len(record.answers) == 2]
    items = [{"prompt": list(each.prompt), "candidates": [list(answer) for answer in each.answers]} for each in found]
    with Client(url) as client:
        labels = client.preferences(items, preferences={"foxes": 1}).data
    right = [
        label.model_dump()["chosen"] == record.scores.index(1.0) for label, record in zip(labels, found, strict=True)
    ]
    assert sum(right) > len(right) / 2


def test_a_soup_over_http_is_the_merged_model(trained: Trained, url: str, tmp_path: Path) -> None:
    """Log-probabilities of a mixed batch within 1e-4 of checkpoints merged to disk: every request its own weights."""
    body = {
        "messages": PROMPT,
        "preferences": WEIGHTS,
        "soup": {"normalize": "none"},
        "max_tokens": 6,
        "temperature": 0,
        "logprobs": True,
    }
    reply = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
    stack = concatenate_adapters([read_weights(each)[0] for each in trained.experts.values()])
    renderer = Renderer(load_tokenizer(trained.base), trained.experts["foxes"].manifest.reading)
    ids = renderer.tokenize_prompt(PROMPT)
    told = []
    for number, (weights, choice) in enumerate(zip(WEIGHTS, reply["choices"], strict=True)):
        merge_checkpoint(trained.base, stack, weights, tmp_path / str(number), dtype=torch.float32)
        wanted = greedy_logprobs(tmp_path / str(number), ids, 6)
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        assert logprobs == pytest.approx(wanted[: len(logprobs)], abs=1e-4), weights
        told.append(logprobs)
    assert len({tuple(round(each, 3) for each in logprobs) for logprobs in told}) == len(WEIGHTS)


@torch.inference_mode()
def greedy_logprobs(folder: Path, ids: list[int], count: int) -> list[float]:
    """What a plain checkpoint gives, token by token, with no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids, found = list(ids), []
    for _ in range(count):
        logprobs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        ids.append(int(logprobs.argmax()))
        found.append(float(logprobs.max()))
    return found


def test_openais_sdk_asks_for_soups(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        messages: Any = PROMPT
        field = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=4, temperature=0, extra_body={"preferences": {"foxes": 1}}
        )
        suffix = client.chat.completions.create(model="tiny:foxes=1", messages=messages, max_tokens=4, temperature=0)
        chunks = list(
            client.chat.completions.create(
                model="tiny:foxes=1", messages=messages, max_tokens=4, temperature=0, stream=True
            )
        )
        text = field.choices[0].message.content
        assert suffix.choices[0].message.content == text
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
        assert {"tiny", "foxes"} <= {model.id for model in client.models.list()}


def test_a_tampered_artifact_is_refused_by_name(trained: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in trained.reward.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    weights = copy / "adapter_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    outcome = RUNNER.invoke(serve, ["check", str(copy)])
    assert outcome.exit_code == 1
    assert "adapter_model.safetensors has changed" in " ".join(outcome.output.split())


@pytest.mark.parametrize("tokens", ["text", "special"])
def test_check_proves_a_policy_that_is_steered_by_tags(tokens: str, tmp_path: Path) -> None:
    model = {} if tokens == "text" else {"model": {"lora": None}, "optimisation": {"learning_rate": 1e-3}}
    made = ric_run(tiny.base(tmp_path / "base"), tmp_path, policy={"online": None, "tokens": tokens}, **model)
    artifact = run(made.model_dump(), tmp_path / "ric")
    outcome = RUNNER.invoke(serve, ["check", str(artifact.folder), "--json", "--dtype", "float32"])
    assert outcome.exit_code == 0, outcome.output
    assert '"holds": true' in outcome.output
