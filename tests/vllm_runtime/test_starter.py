"""The real SmolLM2 and the packaged artifacts on vLLM, against the same on transformers."""

from collections.abc import Iterator
from typing import Any

import pytest
from vllm_runtime.vllm_setup import SMALL

from tureen_serve.runtimes.catalogue import LoadedModels
from tureen_serve.runtimes.contract import Rewards, Row, Weights
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.settings import build_starter_settings

pytestmark = pytest.mark.real
CLOSE = 1e-4
QUESTION = [{"role": "user", "content": "Why do leaves fall in autumn?"}]
ANSWERS = [
    "Abscission is regulated by ethylene and auxin.",
    "Gold letters let go of the bough, one by one, and nobody reads them.",
    "They fall because the tree stops feeding them when the days grow short.",
]
SOUPS: list[Weights] = [
    (("academy", 1.0),),
    (("business", 1.0),),
    (("entertainment", 1.0),),
    (("literature", 1.0),),
    (("academy", 0.5), ("entertainment", 0.5)),
    (("academy", 0.1), ("business", 0.2), ("entertainment", 0.3), ("literature", 0.4)),
    (("academy", 1.5), ("literature", -0.5)),
    (),
]


def loaded(runtime: str) -> LoadedModels:
    given: Any = build_starter_settings()
    settings = SMALL.model_copy(update={"context": 1024, "cache_gib": 0.5})
    options = LoadOptions(runtime=runtime, dtype="float32", vllm=settings)
    return load_models(given["rewards"], given["families"], options, probes=None)


@pytest.fixture(scope="module")
def ours() -> Iterator[LoadedModels]:
    found = loaded("vllm")
    yield found
    found.close()


@pytest.fixture(scope="module")
def reference() -> Iterator[LoadedModels]:
    found = loaded("transformers")
    yield found
    found.close()


def rows(of: LoadedModels) -> list[Row]:
    """Every answer for every reward model, and for a soup of two."""
    (backbone,) = of.backbones
    (like, *_) = backbone.rewards
    blends: list[Weights] = [((reward.artifact.name, 1.0),) for reward in backbone.rewards]
    blends.append((("academy", 0.3), ("literature", 0.7)))
    texts = like.renderer.render_candidates(
        QUESTION, [[{"role": "assistant", "content": answer}] for answer in ANSWERS]
    )
    return [Row(tuple(text.ids), blend, text.shared) for text in texts for blend in blends]


def test_every_probe_of_every_artifact_holds(ours: LoadedModels) -> None:
    assert ours.failure is None
    assert ours.runtime == "vllm (as configured)"
    assert len([reward for backbone in ours.backbones for reward in backbone.rewards]) == 6


def test_scores_are_those_of_transformers(ours: LoadedModels, reference: LoadedModels) -> None:
    asked = rows(ours)
    found = ours.backbones[0].scorer.run(asked)
    wanted = reference.backbones[0].scorer.run(asked)
    for mine, theirs in zip(found, wanted, strict=True):
        assert isinstance(mine, Rewards)
        assert isinstance(theirs, Rewards)
        assert mine.values == pytest.approx(theirs.values, abs=CLOSE)


@pytest.mark.parametrize("weights", SOUPS, ids=str)
def test_soups_are_those_of_transformers(weights: Weights, ours: LoadedModels, reference: LoadedModels) -> None:
    (mine,), (theirs,) = ours.policies, reference.policies
    talk = [*QUESTION, {"role": "assistant", "content": ANSWERS[1]}]
    assert mine.family.renderer is not None
    ids = mine.family.renderer.render_conversation(talk).ids
    start = len(mine.family.renderer.tokenize_prompt(QUESTION))
    found = mine.runtime.likelihood(ids, start, weights)
    assert found == pytest.approx(theirs.runtime.likelihood(ids, start, weights), abs=CLOSE)
