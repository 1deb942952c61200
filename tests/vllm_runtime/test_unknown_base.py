"""A reward adapter on an architecture that vLLM does not have: transformers scores it, and the log says why."""

import logging
from pathlib import Path

import judging
import pytest
from serve.reward_adapters import write_adapter
from transformers import DiffLlamaConfig
from vllm_runtime.vllm_setup import runtime

from tureen_core.base import load_tokenizer
from tureen_core.plain.reward import open_plain_reward


def test_an_adapter_on_a_base_that_vllm_does_not_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judging.write_language_model(tmp_path / "base", kind=DiffLlamaConfig)
    adapter = write_adapter(tmp_path / "adapter", tmp_path / "base", seed=1)
    artifact = open_plain_reward(adapter)
    made = runtime()
    made.reserve_memory(["base-scores"])
    with caplog.at_level(logging.INFO):
        found = made.load_base(tmp_path / "base", load_tokenizer(tmp_path / "base"), [artifact], {})
    ((scorer, artifacts),) = found.scorers
    assert [each.name for each in artifacts] == ["adapter"]
    assert not scorer.description.startswith("vLLM")
    assert "adapter is scored by transformers: vLLM has no DiffLlamaForCausalLM" in caplog.text
    scorer.close()
