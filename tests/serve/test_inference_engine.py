"""The engine over real tiny models: the same numbers as the parts, per-answer errors, soups, and streams."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.experts import causal, merged
from transformers import GenerationConfig

from tureen.errors import NotFound, ServerFault, Unavailable, Unprocessable
from tureen_core.artifact import Artifact
from tureen_core.base import load_tokenizer
from tureen_core.turns import Messages
from tureen_serve.inference.engine import SOUP, Engine, Group, Outcome
from tureen_serve.inference.lane import WorkerLane
from tureen_serve.runtimes.catalogue import LoadedModels
from tureen_serve.runtimes.contract import Rewards, Row, Scorer
from tureen_serve.runtimes.load import LoadOptions, load_models
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.settings import FamilyEntry, RewardEntry

pytestmark = pytest.mark.anyio

FLOAT32 = LoadOptions(dtype="float32", device="cpu")
ASK: Messages = [{"role": "user", "content": "why do leaves fall?"}]
GREEDY = Sampling(max_tokens=10, temperature=0.0, logprobs=0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    base, other = tiny.base(folder / "base"), tiny.base(folder / "other", seed=5)
    tiny.reward(folder / "helpful", base, "helpful", 1)
    tiny.reward(folder / "humor", base, "humor", 2)
    tiny.reward(folder / "many", base, "many", 3, objectives=["facts", "tone"])
    tiny.reward(folder / "mean", base, "mean", 4, pooling="mean")
    tiny.reward(folder / "short", base, "short", 5, max_length=40)
    tiny.reward(folder / "far", other, "far", 6)
    for seed, name in enumerate(("academy", "business", "poetry")):
        tiny.expert(folder / name, base, name, seed)
    return folder


@pytest.fixture(scope="module")
def loaded(shelf: Path) -> LoadedModels:
    rewards = [RewardEntry(path=shelf / name) for name in ("helpful", "humor", "many", "mean", "short", "far")]
    experts = [shelf / name for name in ("academy", "business", "poetry")]
    return load_models(rewards, [FamilyEntry(name="tiny", experts=experts)], FLOAT32)


def rewards_of(scorer: Scorer, row: Row) -> tuple[float, ...]:
    """One row's, alone."""
    (found,) = scorer.run([row])
    assert isinstance(found, Rewards)
    return found.values


@asynccontextmanager
async def running(loaded: LoadedModels, **options: Any) -> AsyncIterator[Engine]:
    """An engine whose lanes are ended and whose models stay, for the next test."""
    engine = Engine(loaded, **options)
    try:
        yield engine
    finally:
        for lane in (*engine.scorers, *engine.generators):
            assert isinstance(lane, WorkerLane)
            await lane._stop()


def answers(*texts: str) -> list[Messages]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def alone(loaded: LoadedModels, objective: str, messages: Messages) -> float:
    """A reward straight from its scorer, one whole text by itself."""
    for backbone in loaded.backbones:
        for reward in backbone.rewards:
            if reward.name == objective:
                ids = reward.renderer.render_conversation(messages).ids
                row = Row(tuple(ids), ((reward.artifact.name, 1.0),))
                return rewards_of(backbone.scorer, row)[reward.column]
    raise KeyError(objective)


def good(outcome: Outcome) -> Mapping[str, float]:
    assert outcome.error is None
    return outcome.raw


async def test_every_reward_of_every_answer_is_its_scorers(loaded: LoadedModels) -> None:
    names = ["tone", "helpful", "far", "mean", "facts"]
    groups = [Group(answers("they are old", "wind"), ASK), Group([[*ASK, *answers("cold")[0]]])]
    async with running(loaded) as engine:
        found = await engine.score(groups, names)
    for group, outcomes in zip(groups, found, strict=True):
        for answer, outcome in zip(group.answers, outcomes, strict=True):
            assert set(good(outcome)) == set(names)
            for name in names:
                expected = alone(loaded, name, [*group.prompt, *answer])
                assert outcome.raw[name] == pytest.approx(expected, rel=2e-6, abs=1e-5)


async def test_tokens_and_cached_tokens_are_told(loaded: LoadedModels) -> None:
    renderer = loaded.backbones[0].rewards[0].renderer
    async with running(loaded) as engine:
        ((first, second),) = await engine.score([Group(answers("a", "b c"), ASK)], ["helpful", "humor"])
    prefix = len(renderer.tokenize_prompt(ASK))
    assert [each.tokens for each in (first, second)] == [
        len(renderer.render_conversation([*ASK, *answer]).ids) for answer in answers("a", "b c")
    ]
    assert [each.cached for each in (first, second)] == [0, prefix]


async def test_objectives_of_one_artifact_share_a_row(loaded: LoadedModels) -> None:
    told: list[Any] = []
    async with running(loaded, observe=told.append) as engine:
        await engine.score([Group(answers("a"), ASK)], ["facts", "tone"])
    assert sum(ran.rows for ran in told) == 1


async def test_a_bad_answer_carries_its_error_alone(loaded: LoadedModels) -> None:
    groups = [
        Group([*answers("a"), [{"role": "user", "content": "b"}], *answers("c")], ASK),
        Group([[*ASK]]),
        Group(answers("d"), ASK),
    ]
    async with running(loaded) as engine:
        found = await engine.score(groups, ["helpful"])
    errors = [[outcome.error and outcome.error.param for outcome in outcomes] for outcomes in found]
    assert errors == [[None, "candidates[1]", None], ["messages[0].role"], [None]]
    assert found[0][1].raw == {}
    assert found[0][2].raw["helpful"] == pytest.approx(
        alone(loaded, "helpful", [*ASK, *answers("c")[0]]), rel=2e-6, abs=1e-5
    )


async def test_a_text_too_long_for_one_reward_fails_whole_or_is_truncated(loaded: LoadedModels) -> None:
    group = Group(answers("leaves " * 12), ASK)
    async with running(loaded) as engine:
        ((refused,),) = await engine.score([group], ["helpful", "short"])
        ((cut,),) = await engine.score([group], ["helpful", "short"], truncate=True)
        ((long,),) = await engine.score([group], ["helpful"])
    assert refused.error is not None
    assert refused.error.code == "context_length_exceeded"
    assert cut.truncated
    assert cut.tokens == long.tokens > 40
    assert not long.truncated
    assert cut.raw["helpful"] == pytest.approx(good(long)["helpful"], rel=2e-6, abs=1e-5)


async def test_an_unknown_objective_is_refused(loaded: LoadedModels) -> None:
    async with running(loaded) as engine:
        with pytest.raises(Unprocessable, match="no reward is called 'wit'; loaded: facts, far, helpful"):
            await engine.score([Group(answers("a"), ASK)], ["wit"])


async def test_nothing_to_score_is_nothing(loaded: LoadedModels) -> None:
    async with running(loaded) as engine:
        assert await engine.score([], ["helpful"]) == []


async def test_a_soup_is_one_reward_of_souped_adapters(loaded: LoadedModels) -> None:
    group = Group(answers("they are old", "wind"), ASK)
    async with running(loaded) as engine:
        (whole,) = await engine.score([group], [], soup={"helpful": 1.0})
        (plain,) = await engine.score([group], ["helpful", "humor"])
        (mixed,) = await engine.score([group], [], soup={"helpful": 0.3, "humor": 0.7})
    assert [set(each.raw) for each in mixed] == [{SOUP}, {SOUP}]
    for one, other, blend in zip(whole, plain, mixed, strict=True):
        assert one.raw[SOUP] == pytest.approx(other.raw["helpful"], rel=2e-6, abs=1e-5)
        weighted = 0.3 * other.raw["helpful"] + 0.7 * other.raw["humor"]
        assert abs(blend.raw[SOUP] - weighted) > 1e-3
    renderer = loaded.backbones[0].rewards[0].renderer
    ids = renderer.render_conversation([*ASK, *group.answers[0]]).ids
    expected = rewards_of(loaded.backbones[0].scorer, Row(tuple(ids), (("helpful", 0.3), ("humor", 0.7))))[0]
    assert mixed[0].raw[SOUP] == pytest.approx(expected, rel=2e-6, abs=1e-5)


@pytest.mark.parametrize("names", [("helpful", "far"), ("helpful", "mean"), ("helpful", "facts"), ("facts", "tone")])
async def test_rewards_that_are_not_read_alike_cannot_be_souped(loaded: LoadedModels, names: Sequence[str]) -> None:
    async with running(loaded) as engine:
        with pytest.raises(Unprocessable) as caught:
            await engine.score([Group(answers("a"), ASK)], [], soup=dict.fromkeys(names, 0.5))
    assert caught.value.param == "preferences"


async def test_a_full_queue_anywhere_leaves_nothing_behind(
    loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(loaded) as engine:
        near, far = engine.models.scorers["helpful"], engine.models.scorers["far"]
        monkeypatch.setattr(near._batcher, "next_batch", lambda limits: [])
        monkeypatch.setattr(far, "submit", refuse)
        with pytest.raises(Unavailable, match="full"):
            await engine.score([Group(answers("a", "b"), ASK)], ["helpful", "far"])
        await asyncio.sleep(0)
        assert near.queued_rows == 0
        monkeypatch.undo()
        ((found,),) = await engine.score([Group(answers("a"), ASK)], ["far"])
        assert found.error is None


def refuse(*_: Any) -> Any:
    raise Unavailable("full")


async def test_a_cancelled_call_leaves_the_queue(loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(loaded) as engine:
        lane = engine.models.scorers["helpful"]
        monkeypatch.setattr(lane._batcher, "next_batch", lambda limits: [])
        call = asyncio.create_task(engine.score([Group(answers("a", "b"), ASK)], ["helpful"]))
        while lane.queued_rows < 2:
            await asyncio.sleep(0.001)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await asyncio.sleep(0)
        assert (lane.queued_rows, lane.queued_tokens) == (0, 0)
        monkeypatch.undo()


async def test_a_runtime_fault_is_laid_to_its_answer(loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = loaded.backbones[0].scorer
    renderer = loaded.backbones[0].rewards[0].renderer
    run, poison = scorer.run, renderer.render_conversation([*ASK, *answers("bad")[0]]).ids

    def poisoned(rows: Sequence[Row], fresh: bool = False) -> Any:
        if any(row.ids == tuple(poison) for row in rows):
            raise ZeroDivisionError
        return run(rows)

    monkeypatch.setattr(scorer, "run", poisoned)
    async with running(loaded) as engine:
        ((first, second),) = await engine.score([Group(answers("fine", "bad"), ASK)], ["helpful"])
    assert first.error is None
    assert isinstance(second.error, ServerFault)
    assert second.error.param == "candidates[1]"


async def test_a_dead_backbone_is_the_engines_failure(loaded: LoadedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded.backbones[0].scorer, "run", refuse)
    async with running(loaded) as engine:
        assert engine.failure is None
        with pytest.raises(Unavailable, match="has died"):
            await engine.score([Group(answers("a"), ASK)], ["helpful"])
        assert engine.failure is not None
        assert "full" in engine.failure


async def test_a_probe_that_differs_keeps_the_engine_not_ready(loaded: LoadedModels) -> None:
    async with running(replace(loaded, failure="helpful, probe 3: no")) as engine:
        assert engine.failure == "helpful, probe 3: no"


# --------------------------------------------------------------------------- texts


async def write(engine: Engine, ids: Sequence[int], weights: Mapping[str, float], **changes: Any) -> str:
    deltas = engine.generate("tiny", ids, replace(GREEDY, **changes), weights)
    return "".join([delta.text async for delta in deltas])


async def test_concurrent_texts_are_those_of_their_merged_models(loaded: LoadedModels, shelf: Path) -> None:
    renderer = loaded.policies[0].family.renderer
    assert renderer is not None
    ids = renderer.tokenize_prompt(ASK)
    soups = [{"academy": 1.0}, {"academy": 0.5, "poetry": 0.5}, {}]
    async with running(loaded) as engine:
        found = await asyncio.gather(*(write(engine, ids, soup) for soup in soups))
    tokenizer = load_tokenizer(shelf / "base")
    for text, soup in zip(found, soups, strict=True):
        model = merged(shelf / "base", soup) if soup else causal(shelf / "base")
        settings = GenerationConfig(max_new_tokens=10, do_sample=False, eos_token_id=2, pad_token_id=0)
        made = model.generate(**tokenizer.pad({"input_ids": [ids]}, return_tensors="pt"), generation_config=settings)
        whole = tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)
        assert text == whole.rstrip("�")  # half a character at the end is never shown


async def test_a_text_that_cannot_be_written_is_refused_by_field(loaded: LoadedModels) -> None:
    async with running(loaded) as engine:
        with pytest.raises(NotFound, match="loaded: tiny"):
            engine.generate("huge", [5], GREEDY, {})
        with pytest.raises(Unprocessable) as caught:
            engine.generate("tiny", [5], GREEDY, {"humor": 1.0})
        assert caught.value.param == "preferences.humor"
        with pytest.raises(Unprocessable) as caught:
            await write(engine, [], {})
        assert caught.value.param == "prompt"


async def test_factor_semantics_need_experts_that_allow_them(shelf: Path, tmp_path: Path) -> None:
    thin: Artifact = tiny.expert(tmp_path / "thin", shelf / "base", "thin", 9)
    assert thin.name == "thin"
    loaded = load_models([], [FamilyEntry(name="tiny", experts=[shelf / "academy", tmp_path / "thin"])], FLOAT32)
    policy = loaded.policies[0]
    family = replace(policy.family, factor_obstacle="unequal ranks")
    async with running(replace(loaded, policies=(replace(policy, family=family),))) as engine:
        with pytest.raises(Unprocessable, match="unequal ranks") as caught:
            engine.generate("tiny", [5], GREEDY, {"thin": 1.0}, "factor")
        assert caught.value.param == "soup.semantics"


async def test_closing_the_engine_ends_all_lanes(shelf: Path) -> None:
    loaded = load_models(
        [RewardEntry(path=shelf / "helpful")], [FamilyEntry(name="tiny", experts=[shelf / "academy"])], FLOAT32
    )
    engine = Engine(loaded)
    call = asyncio.create_task(engine.score([Group(answers("a"), ASK)], ["helpful"]))
    await call
    await engine.close()
    with pytest.raises(Unavailable) as caught:
        await engine.score([Group(answers("b"), ASK)], ["helpful"])
    assert caught.value.code == "draining"
    with pytest.raises(Unavailable):
        await write(engine, [5], {})
