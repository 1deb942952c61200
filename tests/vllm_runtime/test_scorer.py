"""Scores from vLLM against the transformers runtime on the same artifacts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.experts import texts
from vllm_runtime.vllm_setup import runtime

from tureen.errors import ServerFault
from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row, Scorer, Weights
from tureen_serve.runtimes.on_transformers.models import TransformersRuntime

CLOSE = 1e-4
BLENDS: list[Weights] = [
    (("helpful", 1.0),),
    (("harmless", 1.0),),
    (("many", 1.0),),
    (("harmless", 0.7), ("helpful", 0.3)),
    (("harmless", -0.5), ("helpful", 1.5)),
]


@pytest.fixture(scope="module")
def reference(base: Path, rewards: list[Artifact]) -> Scorer:
    standing = TransformersRuntime("float32", "cpu", BatchLimits()).load_base(base, load_tokenizer(base), rewards, {})
    return standing.scorers[0][0]


def rows() -> list[Row]:
    """Texts of many lengths and answers to shared prompts, under every blend."""
    prompt = texts([70], seed=3)[0]
    answers = [prompt + ids for ids in texts([4, 30, 61], seed=4)]
    alone = texts([1, 9, 33, 120], seed=5)
    return [Row(ids, blend) for ids in alone for blend in BLENDS] + [
        Row(ids, blend, len(prompt)) for ids in answers for blend in BLENDS
    ]


def sound(found: Sequence[Any]) -> list[Rewards]:
    assert all(isinstance(each, Rewards) for each in found), found
    return list(found)


def test_scores_are_those_of_the_transformers_runtime(scorer: Scorer, reference: Scorer) -> None:
    asked = rows()
    for found, wanted in zip(sound(scorer.run(asked)), sound(reference.run(asked)), strict=True):
        assert found.values == pytest.approx(wanted.values, abs=CLOSE)


def test_a_prompt_is_computed_once_for_its_answers(scorer: Scorer) -> None:
    prompt = texts([130], seed=21)[0]
    asked = [Row(prompt + ids, BLENDS[0], len(prompt)) for ids in texts([12] * 6, seed=22)]
    cached = sorted(each.cached for each in sound(scorer.run(asked)))
    assert cached == [0, 128, 128, 128, 128, 128]  # whole blocks of 32


def test_a_prompt_is_never_shared_across_blends(scorer: Scorer) -> None:
    prompt = texts([130], seed=23)[0]
    first = sound(
        scorer.run([Row(prompt + ids, blend, 130) for ids, blend in zip(texts([9] * 5), BLENDS, strict=True)])
    )
    assert [each.cached for each in first] == [0] * 5


def test_a_row_that_vllm_refuses_fails_alone(scorer: Scorer) -> None:
    good, bad = Row(texts([9])[0], BLENDS[0]), Row(texts([600])[0], BLENDS[0])
    found = scorer.run([good, bad, good])
    assert [type(each) for each in found[::2]] == [Rewards, Rewards]
    assert not isinstance(found[1], Rewards)
    assert "600" in str(found[1])
    assert not isinstance(found[1], ServerFault)


def test_two_batches_may_be_with_it_at_once(scorer: Scorer) -> None:
    assert scorer.threads == 2
    assert scorer.description == "vLLM, pooled at the last token"
    assert scorer.failure is None


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_full_checkpoint_is_served_without_its_head(base: Path, tmp_path: Path, pooling: Any) -> None:
    """Pooling over all tokens stays with transformers."""
    artifact = tiny.full_reward(tmp_path / "full", base, "whole", 4, pooling=pooling)
    made = runtime()
    made.reserve_memory(["whole"])
    scorer: Scorer = made.load_checkpoint(artifact)
    wanted = TransformersRuntime("float32", "cpu", BatchLimits()).load_checkpoint(artifact)
    try:
        asked = [Row(ids, (("whole", 1.0),)) for ids in texts([2, 20, 77], seed=6)]
        for found, expected in zip(sound(scorer.run(asked)), sound(wanted.run(asked)), strict=True):
            assert found.values == pytest.approx(expected.values, abs=CLOSE)
        assert scorer.description.startswith("vLLM") == (pooling == "last")
    finally:
        scorer.close()
