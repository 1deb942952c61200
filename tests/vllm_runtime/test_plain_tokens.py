"""Judges and process reward models of others: vLLM gives the scores of the transformers runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import judging
import pytest
from vllm_runtime.vllm_setup import runtime

from tureen_core.artifact import Artifact
from tureen_core.inputs import render_probe
from tureen_core.plain.options import PlainOptions
from tureen_core.plain.reward import make_plain_renderer, open_plain_reward
from tureen_serve.runtimes.contract import Rewards, Row, Scorer

CLOSE = 1e-4


def write_untied(folder: Path) -> None:
    judging.write_language_model(folder, tie_word_embeddings=False)


FORMS: list[tuple[Any, dict[str, Any]]] = [
    (write_untied, {"form": "pair-judge"}),
    (judging.write_qwen, {}),
    (judging.write_valued, {}),
]


def run(scorer: Scorer, artifact: Artifact) -> Sequence[float]:
    assert artifact.plain is not None
    renderer = make_plain_renderer(artifact.plain.tokenizer, artifact.manifest.reading)
    texts = [render_probe(renderer, artifact.manifest.input, probe).ids for probe in artifact.manifest.probes]
    found = scorer.run([Row(tuple(ids), ((artifact.name, 1.0),)) for ids in texts])
    assert all(isinstance(each, Rewards) for each in found), found
    return [each.values[0] for each in found if isinstance(each, Rewards)]


@pytest.mark.parametrize(("write", "options"), FORMS)
def test_vllm_reads_tokens_and_marks(tmp_path: Path, write: Any, options: dict[str, Any]) -> None:
    write(tmp_path)
    artifact = open_plain_reward(tmp_path, PlainOptions(**options), "judge")
    made = runtime()
    made.reserve_memory(["judge"])
    scorer = made.load_checkpoint(artifact)
    try:
        assert scorer.description == "vLLM, pooled at the last token"
        wanted = [probe.scores["reward"] for probe in artifact.manifest.probes]
        assert run(scorer, artifact) == pytest.approx(wanted, abs=CLOSE)
        assert max(wanted) - min(wanted) > 0.01
    finally:
        scorer.close()
