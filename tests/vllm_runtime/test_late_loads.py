"""What can be loaded while vLLM runs: the reward models that transformers scores, and no others."""

from pathlib import Path

import tiny
from serve.artifacts import PROBE
from vllm_runtime.vllm_setup import runtime

from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_serve.runtimes.contract import Rewards, Row


def test_rewards_of_vllm_stay_until_the_next_start(base: Path, rewards: list[Artifact]) -> None:
    reason = runtime().find_late_obstacle(rewards[0], base)
    assert reason is not None
    assert "vLLM scores it" in reason
    assert "start the server again" in reason


def test_rewards_that_transformers_scores_are_loaded(base: Path, tmp_path: Path) -> None:
    made = runtime()
    artifact = tiny.reward(tmp_path / "mean", base, "mean", 7, pooling="mean")
    assert made.find_late_obstacle(artifact, base) is None
    assert made.find_free_bytes() is None
    alone = made.measure_late(base, [artifact])
    scorer = made.load_late(base, [artifact])
    assert 0 < made.measure_late(base, [artifact]) < alone  # the base is there now
    ids = tuple(Renderer(load_tokenizer(base), artifact.manifest.reading).render_conversation(PROBE).ids)
    (found,) = scorer.run([Row(ids, (("mean", 1.0),))])
    assert isinstance(found, Rewards)
    scorer.close()
