"""What the tests of reward sources share: artifacts with a scale, prompts, and answers as a sampler gives them."""

import sys
import uuid
from pathlib import Path

import pytest
import tiny

from tureen.records.dialogue import user_turn
from tureen_core.artifact import Artifact, seal_artifact
from tureen_core.calibration import Calibration
from tureen_train.policies.rollouts.contract import Prompt, Sample

LONG = "leaves fall " * 200
PROMPTS = [
    Prompt("file:1", (user_turn("why?"),)),
    Prompt("file:2", (user_turn("what?"),)),
    Prompt("file:3", (user_turn("who?"),)),
]
TEXTS = [["a fox", "a dog", ""], ["leaves", "fall"], [LONG]]


def answers(texts: list[list[str]]) -> list[list[Sample]]:
    """Samples with these texts, for the prompts ``file:1``, ``file:2`` and so on."""
    return [[Sample(f"file:{at}", number, text) for number, text in enumerate(row)] for at, row in enumerate(texts, 1)]


def scaled(folder: Path, base: Path, names: list[str], scale: Calibration | None, seed: int = 1) -> Artifact:
    """A sealed reward artifact with an objective for each name, all with this calibration."""
    manifest = tiny.reward(folder, base, folder.name, seed, names).manifest
    objectives = [each.model_copy(update={"calibration": scale}) for each in manifest.objectives]
    return seal_artifact(folder, manifest.model_copy(update={"objectives": objectives}))


FUNCTIONS = """
import math
import numpy as np
import torch

def length(prompts, answers):
    return [len(each) for each in answers]

def vowels(prompts, answers):
    return [sum(map(each.count, "aeiou")) if each else None for each in answers]

def asked(prompts, answers):
    assert len(prompts) == len(answers)
    return torch.tensor([float(len(turns[-1]["content"])) for turns in prompts])

def mixed(prompts, answers):
    return [np.float32(1.5), "2", math.nan, None, True, -math.inf][: len(answers)]

def few(prompts, answers):
    return [1.0]

def lost(prompts, answers):
    raise KeyError("no judge")

LIMIT = 3
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with reward functions, which stands in the working folder."""
    name = f"rewards_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name
