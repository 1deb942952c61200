"""vLLM where it cannot run. Where it can, see the tests in ``vllm_runtime``."""

import sys
from pathlib import Path

import pytest

from tureen_core.base import load_tokenizer
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, Sampling
from tureen_train.policies.rollouts.vllm_sampler import VllmSampler


def test_vllm_that_is_not_installed_is_refused_by_its_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    renderer = Renderer(load_tokenizer(base), Reading())
    with pytest.raises(RecipeError, match=r"sampling\.engine: vllm is not installed: pip install 'tureen\[vllm\]'"):
        VllmSampler(base, None, 8, renderer, Sampling(), half=False)


def test_a_launcher_with_several_processes_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="vllm runs in one process"):
        VllmSampler(base, None, 8, Renderer(load_tokenizer(base), Reading()), Sampling(), half=False)
