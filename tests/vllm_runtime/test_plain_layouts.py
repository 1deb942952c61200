"""Reward models in published layouts: vLLM gives the scores of their published code, and reads ArmoRM's gate."""

from pathlib import Path

import pytest
from serve.layouts import LAYOUTS, make_conversations
from vllm_runtime.vllm_setup import runtime

from tureen_core import base
from tureen_core.gate import select_prompt_ids
from tureen_core.plain.options import PlainOptions
from tureen_core.plain.reward import make_plain_renderer, open_plain_reward
from tureen_serve.runtimes.contract import Rewards, Row
from tureen_serve.runtimes.readout import weigh_rewards

CLOSE = 1e-3


@pytest.mark.parametrize("name", ["starling", "value-head", "armorm"])
def test_vllm_reads_published_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(base, "CACHE", tmp_path / "cache")
    layout = LAYOUTS[name](tmp_path / name)
    artifact = open_plain_reward(layout.folder, PlainOptions(**layout.options), name)
    assert artifact.plain is not None
    renderer = make_plain_renderer(artifact.plain.tokenizer, artifact.manifest.reading)
    made, blend = runtime(), ((name, 1.0),)
    made.reserve_memory([name])
    scorer = made.load_checkpoint(artifact)
    try:
        assert scorer.description == "vLLM, pooled at the last token"
        texts = [renderer.render_conversation(turns) for turns in make_conversations(12)]
        scored = scorer.run([Row(tuple(text.ids), blend) for text in texts])
        found = [each.values for each in scored if isinstance(each, Rewards)]
        if artifact.manifest.gated:
            prompts = [select_prompt_ids(text, renderer.frame.opening_ids) for text in texts]
            gates = scorer.run([Row(tuple(ids), blend, head="gate") for ids in prompts])
            weights = [each.values for each in gates if isinstance(each, Rewards)]
            found = [(*row, weigh_rewards(row, own)) for row, own in zip(found, weights, strict=True)]
        wanted = [layout.score(text.ids) for text in texts]
        assert [list(row) for row in found] == [pytest.approx(row, abs=CLOSE) for row in wanted]
    finally:
        scorer.close()
