"""How far answers are from a base: against a computation in float64, and over a real server."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from tureen_train.config import FrontRun
from tureen_train.evaluation.server import run_server
from tureen_train.front.divergence import BaseLogprobs, add_told
from tureen_train.front.figures import compute_figures
from tureen_train.front.measure import FrontMeasurer
from tureen_train.policies.rollouts.contract import Prompt

NAMES = ("academy", "entertainment")
PROMPT = Prompt("p", ({"role": "user", "content": "why?"},))


def test_the_base_says_what_its_logits_say_in_float64(base: Path) -> None:
    reader = BaseLogprobs(str(base))
    found, count = reader.read(PROMPT, "the leaves fall")
    opening = reader.renderer.tokenize_prompt(PROMPT.messages)
    ids = [*opening, *reader.renderer.tokenizer("the leaves fall", add_special_tokens=False)["input_ids"]]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    wanted = sum(float(logprobs[at - 1, ids[at]]) for at in range(len(opening), len(ids)))
    assert count == len(ids) - len(opening)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert reader.read(PROMPT, "") == (0.0, 0)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (None, (None, 0)),
        ({"content": None}, (None, 0)),
        ({"content": [{"logprob": -1.5}, {"logprob": -0.25}]}, (-1.75, 2)),
        ({"content": [{"logprob": -1.5}, {"logprob": -9999.0}]}, (None, 2)),
    ],
)
def test_a_token_that_cannot_be_leaves_the_answer_without_a_number(told: Any, wanted: tuple[float | None, int]) -> None:
    assert add_told(told) == wanted


@pytest.fixture(scope="module")
def url(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server over tiny artifacts."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "tureen_serve", "--dtype", "float32"]
    for seed, name in enumerate(NAMES):
        command += ["--reward", str(tiny.reward(folder / f"r-{name}", base, name, seed).folder)]
        command += ["--expert", str(tiny.expert(folder / f"e-{name}", base, name, seed).folder)]
    with run_server(command) as address:
        yield address


def test_the_base_itself_is_at_no_distance_and_an_expert_is(base: Path, url: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("why?\nwhat is autumn?\n")
    run = FrontRun.model_validate(
        {
            "kind": "front",
            "name": "near",
            "objectives": {name: {"source": "server", "url": url, "reward": name} for name in NAMES},
            "servers": {"own": {"url": url}},
            "methods": [
                {"name": "base", "server": "own", "steering": "none"},
                {"name": "soup", "server": "own"},
                {"name": "best", "server": "own", "steering": "none", "candidates": 2},
            ],
            "baseline": "base",
            "base": str(base),
            "prompts": str(prompts),
            "grid": {"steps": 1},
            "sampling": {
                "max_tokens": 1,
                "temperature": 1.0,
            },  # a tiny model writes no text that reads back as its tokens
        }
    )
    measured = FrontMeasurer(run, tmp_path / "out", lambda *_: None).measure()
    far = {name: compute_figures(measured, name).divergence for name in measured.methods}
    assert far["base"] == pytest.approx(0, abs=2e-4)
    assert far["soup"] > 1e-3
    assert far["best"] != far["best"]
    again = FrontMeasurer(run, tmp_path / "out", lambda *_: pytest.fail("nothing is left to do"))
    assert again.measure().methods["soup"].ratios == measured.methods["soup"].ratios
