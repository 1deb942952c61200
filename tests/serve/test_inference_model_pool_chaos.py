"""Many callers, more models than fit: every answer has the numbers of its model alone, and nothing is lost or stuck."""

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import tiny
from prometheus_client.parser import text_string_to_metric_families
from serve.artifacts import prove
from serve.border import listening, listening_app
from waiting import PATIENCE

from tureen_serve.app import create_app, load_engine
from tureen_serve.settings import RewardEntry, load_settings

NAMES = ("calm", "dry", "whole")
PROMPTS = ("why?", "why do leaves fall in autumn?", "hi")
REQUESTS = 200
CALLERS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of about the same size: two adapters, each on a base of its own, and a full checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("calm", "dry")):
        base = tiny.base(folder / f"base-{name}", seed)
        prove(tiny.reward(folder / "root" / name, base, name, seed))
    prove(tiny.full_reward(folder / "root/whole", tiny.base(folder / "base-whole", 9), "whole", 9))
    return folder / "root"


def body(name: str, prompt: str) -> dict[str, Any]:
    return {"items": [{"prompt": prompt, "candidates": ["because", "the wind is lazy"]}], "rewards": [name]}


def raws(reply: Any, name: str) -> list[float]:
    return [each["scores"][name]["raw"] for each in reply["data"][0]["candidates"]]


def expected(root: Path, name: str) -> dict[str, list[float]]:
    """Prompt → the rewards of a server that serves only this model."""
    settings = load_settings(rewards=[RewardEntry(path=root / name)], dtype="float32", device="cpu")
    with listening(load_engine(settings, lambda _: None)) as url:
        replies = {prompt: httpx2.post(f"{url}/v1/score", json=body(name, prompt)) for prompt in PROMPTS}
    return {prompt: raws(reply.json(), name) for prompt, reply in replies.items()}


def room_for_two(root: Path) -> float:
    """GiB with room for any two of the models, and not for three."""
    folders = [[root / name, root.parent / f"base-{name}"] for name in ("calm", "dry")]
    sizes = [sum(path.stat().st_size for each in pair for path in each.glob("*.safetensors")) for pair in folders]
    return 2.2 * max(sizes) / 2**30


def ask(url: str, seed: int, name: str, prompt: str) -> tuple[str, str, list[float]]:
    """Ask one of two routes. It is answered, however many callers ask for the other models."""
    native = random.Random(seed).random() < 0.5
    path, sent = ("/v1/score", body(name, prompt)) if native else ("/vllm/score", pairs(name, prompt))
    reply = httpx2.post(f"{url}{path}", json=sent, timeout=PATIENCE)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    return name, prompt, raws(found, name) if native else [each["score"] for each in found["data"]]


def pairs(name: str, prompt: str) -> dict[str, Any]:
    return {"text_1": prompt, "text_2": ["because", "the wind is lazy"], "model": name, "use_activation": False}


def samples(url: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx2.get(f"{url}/metrics").text):
        for each in family.samples:
            if each.name.startswith(("tureen_model_", "tureen_models_")) and "le" not in each.labels:
                found[f"{each.name}{each.labels.get('outcome', '')}"] = each.value
    return found


@pytest.mark.long
def test_answers_are_right_while_models_come_and_go(root: Path) -> None:
    wanted = {name: expected(root, name) for name in NAMES}
    settings = load_settings(rewards_root=root, rewards_memory_gib=room_for_two(root), dtype="float32", device="cpu")
    rng = random.Random(12)
    asked = [(seed, rng.choice(NAMES), rng.choice(PROMPTS)) for seed in range(REQUESTS)]
    with listening_app(create_app(settings)) as url:
        with ThreadPoolExecutor(CALLERS) as callers:
            found = list(callers.map(lambda each: ask(url, *each), asked))
        counted = samples(url)
        listed = httpx2.get(f"{url}/v1/models").json()["data"]
    assert Counter(name for name, *_ in found) == Counter(name for _, name, _ in asked)
    for name, prompt, values in found:
        assert values == pytest.approx(wanted[name][prompt], abs=1e-5), (name, prompt)
    loaded = sum(card["loaded"] for card in listed)
    assert counted["tureen_models_loaded"] == loaded <= 2
    assert counted["tureen_model_evictions_total"] > 3
    assert counted["tureen_model_loads_totalloaded"] - counted["tureen_model_evictions_total"] == loaded
    assert counted["tureen_model_on_demand_load_seconds_count"] == counted["tureen_model_loads_totalloaded"]
