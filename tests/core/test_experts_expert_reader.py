"""Likelihoods of answers, against the causal model's own loss."""

from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from tureen_core.base import load_tokenizer
from tureen_core.experts.expert_reader import ExpertReader, compute_mean_logprobs
from tureen_core.manifest import Probe
from tureen_core.template import Renderer

TALKS = [
    [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "the fox"}],
    [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": "leaves fall in autumn"},
    ],
]
PROBES = [Probe(messages=talk) for talk in TALKS]


def reference(base: Path) -> list[float]:
    """−loss over the answer's tokens and its end mark."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))
    found = []
    for talk in TALKS:
        ids = renderer.render_conversation(talk).ids
        start = len(renderer.tokenize_prompt(talk[:-1]))
        assert ids[-1] == renderer.tokenizer.eos_token_id
        labels = torch.tensor([[-100] * start + ids[start:]])
        with torch.no_grad():
            found.append(-float(model(input_ids=torch.tensor([ids]), labels=labels).loss))
    return found


def test_a_bare_base_gives_the_causal_models_likelihood(base: Path) -> None:
    reader = ExpertReader(None, base, tiny.reading(base))
    assert reader.mean_logprobs(PROBES) == pytest.approx(reference(base), abs=1e-5)
    assert compute_mean_logprobs(reader.model, reader.renderer, []) == []


def test_an_adapter_changes_it(base: Path, tmp_path: Path) -> None:
    expert = tiny.expert(tmp_path / "expert", base, "poetry", seed=4)
    moved = ExpertReader(expert.folder, base, tiny.reading(base)).mean_logprobs(PROBES)
    assert all(abs(there - here) > 1e-2 for there, here in zip(moved, reference(base), strict=True))
