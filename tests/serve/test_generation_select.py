"""Running a plan: all texts at once, candidates scored and chosen, streams merged, and nothing left running."""

import asyncio
import math
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve.counting import CountingEngine
from waiting import let_others_run, wait_until

from tureen.errors import ServerFault, Unavailable
from tureen.wire import CandidateOptions, ChatRequest
from tureen_serve.generation.plan import Plan, plan_generation
from tureen_serve.generation.select import (
    Choice,
    Slate,
    Spent,
    Written,
    _judge,
    pick_candidates,
    stream_texts,
    write_choices,
)
from tureen_serve.generation.texts import TextTask, plan_texts
from tureen_serve.inference.engine import Outcome

MIX = {"calm": 1.0, "funny": 1.0}
PROMPT = [{"role": "user", "content": "hi"}]

REWARDS = st.lists(st.none() | st.floats(-20, 20), min_size=1, max_size=8)


def go(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def order(engine: CountingEngine, **fields: Any) -> tuple[Plan, list[TextTask]]:
    request = ChatRequest.model_validate({"messages": PROMPT, "seed": 1, **fields})
    planned = plan_generation(request, engine.families, engine.rewards)
    return planned, plan_texts(request, planned, [[[1, 2, 3]]])


async def ran(engine: CountingEngine, **fields: Any) -> tuple[list[Choice], int]:
    planned, wanted = order(engine, **fields)
    spent = Spent()
    judged: list[tuple[Sequence[str], int]] = []
    choices = await write_choices(
        engine, planned, wanted, [PROMPT], spent, lambda names, found: judged.append((names, len(found)))
    )
    size = planned.candidates.n if planned.candidates else 0
    assert sum(count for _, count in judged) == (len(wanted) if size else 0)
    assert all(count == size and names for names, count in judged)
    return choices, spent.made


# --------------------------------------------------------------------------- choosing


def test_the_best_is_the_first_of_the_highest() -> None:
    assert pick_candidates([0.1, 0.9, None, 0.9], CandidateOptions(), None) == [1]


def test_an_answer_that_the_prompt_begins_is_judged_as_a_whole() -> None:
    _, (task, *_) = order(CountingEngine(), preferences=MIX)
    written = Written("so it is.", 3, "stop", replace(task, begun="Well, "))
    group = Slate(task.variation, PROMPT, [written], None).group()
    assert group.answers == [[{"role": "assistant", "content": "Well, so it is."}]]


def test_all_are_all_even_those_without_a_reward() -> None:
    assert pick_candidates([0.1, None, 0.9], CandidateOptions(select="all"), None) == [0, 1, 2]


@pytest.mark.parametrize("select", ["best", "soft"])
def test_where_nothing_has_a_reward_nothing_is_chosen(select: Any) -> None:
    assert pick_candidates([None, None], CandidateOptions(select=select), 1) == []


def test_soft_draws_by_softmax_of_reward_over_temperature() -> None:
    rewards = [0.0, math.log(3), None]
    drawn = Counter(pick_candidates(rewards, CandidateOptions(select="soft"), seed)[0] for seed in range(4000))
    assert drawn[2] == 0
    assert drawn[1] / 4000 == pytest.approx(0.75, abs=0.03)
    cold = Counter(
        pick_candidates(rewards, CandidateOptions(select="soft", temperature=0.5), seed)[0] for seed in range(4000)
    )
    assert cold[1] / 4000 == pytest.approx(0.9, abs=0.03)


@given(REWARDS, st.integers(0, 2**32), st.sampled_from([None, 0.0, 1e-9, 1.0, 1e9]))
def test_soft_is_seeded_and_never_takes_what_has_no_reward(
    rewards: list[float | None], seed: int, temperature: float | None
) -> None:
    options = CandidateOptions(select="soft", temperature=temperature)
    picks = pick_candidates(rewards, options, seed)
    assert picks == pick_candidates(rewards, options, seed)
    assert all(rewards[pick] is not None for pick in picks)
    assert len(picks) == (1 if any(each is not None for each in rewards) else 0)


@given(REWARDS, st.integers(0, 100))
def test_soft_without_temperature_is_the_best(rewards: list[float | None], seed: int) -> None:
    cold = pick_candidates(rewards, CandidateOptions(select="soft", temperature=0), seed)
    assert cold == pick_candidates(rewards, CandidateOptions(select="best"), seed)


# --------------------------------------------------------------------------- running


def test_every_text_becomes_a_choice_in_order() -> None:
    async def work() -> None:
        choices, spent = await ran(CountingEngine(), preferences=[{"calm": 1}, {"funny": 1}], n=2, max_tokens=3)
        assert [choice.written.text for choice in choices] == ["calm calm calm"] * 2 + ["funny funny funny"] * 2
        assert [choice.variation.weights for choice in choices] == [{"calm": 1.0}] * 2 + [{"funny": 1.0}] * 2
        assert [choice.written.finish for choice in choices] == ["length"] * 4
        assert (spent, choices[0].raw, choices[0].reward) == (12, None, None)

    go(work())


def test_texts_are_written_at_the_same_time() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.gate.clear()
        task = asyncio.create_task(ran(engine, n=5))
        await wait_until(lambda: engine.running == 5)
        engine.gate.set()
        assert len((await task)[0]) == 5

    go(work())


def test_candidates_are_scored_in_one_call_and_the_best_stays() -> None:
    async def work() -> None:
        engine = CountingEngine()
        options = {"n": 4, "preferences": {"funny": 1}}
        choices, spent = await ran(engine, preferences=MIX, n=3, candidates=options)
        (groups,) = engine.asked
        assert (len(groups), engine.calls[0][1]) == (3, ["funny"])
        for choice, group in zip(choices, groups, strict=True):
            written = [answer[0]["content"] for answer in group.answers]
            assert len(written) == 4
            assert choice.written.text == max(written, key=lambda text: text.count("funny"))
            assert choice.raw == {"funny": choice.written.text.count("funny")}
            assert group.prompt == PROMPT
        assert spent == 3 * 4 * 6

    go(work())


def test_a_sweep_is_scored_by_all_its_judges_and_chosen_by_its_own() -> None:
    async def work() -> None:
        engine = CountingEngine()
        judges = [{"calm": 1}, {"funny": 1}]
        choices, _ = await ran(engine, preferences=judges, candidates={"n": 2})
        assert engine.calls[0][1] == ["calm", "funny"]
        assert choices[0].raw == {"calm": 6.0, "funny": 0.0}
        assert choices[0].reward == pytest.approx((6 - 1) / 2)
        assert choices[1].reward == 6.0

    go(work())


def test_all_candidates_come_back_with_their_rewards() -> None:
    async def work() -> None:
        choices, _ = await ran(CountingEngine(), preferences=MIX, n=2, candidates={"n": 3, "select": "all"})
        assert len(choices) == 6
        assert all(choice.reward is not None for choice in choices)

    go(work())


def test_an_error_ends_the_other_texts() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.breaks_after = 2
        with pytest.raises(Unavailable):
            await ran(engine, n=4)
        assert engine.running == 0

    go(work())


def test_being_cancelled_ends_all_texts() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.gate.clear()
        task = asyncio.create_task(ran(engine, n=4))
        await wait_until(lambda: engine.running == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (engine.running, engine.dropped) == (0, 4)

    go(work())


def test_a_candidate_without_a_finite_reward_is_passed_over() -> None:
    engine = CountingEngine()
    planned, _ = order(engine, preferences={"calm": 1}, candidates={})
    written = (asyncio.run(ran(engine)))[0][0].written
    variation = planned.variations[0]
    assert _judge(engine, variation, written, Outcome({"calm": math.nan})).reward is None
    assert _judge(engine, variation, written, Outcome({}, error=ServerFault("no"))).reward is None
    assert _judge(engine, variation, written, Outcome({"calm": 3.0})).reward == 1.0


# --------------------------------------------------------------------------- streaming


def test_streams_are_merged_and_each_keeps_its_order() -> None:
    async def work() -> None:
        engine = CountingEngine()
        planned, wanted = order(engine, preferences=[{"calm": 1}, {"funny": 1}], n=2, max_tokens=4)
        heard: dict[int, str] = {}
        finished = []
        sequence = []
        async for number, delta in stream_texts(engine, planned, wanted):
            heard[number] = heard.get(number, "") + delta.text
            sequence.append(number)
            if delta.finish:
                finished.append(number)
        assert heard == {0: "calm calm calm calm", 1: "calm calm calm calm"} | dict.fromkeys(
            (2, 3), "funny funny funny funny"
        )
        assert sorted(finished) == [0, 1, 2, 3]
        assert sequence != sorted(sequence)

    go(work())


def test_closing_a_stream_ends_every_text() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.pause_after = 1
        planned, wanted = order(engine, n=3)
        deltas = stream_texts(engine, planned, wanted)
        await anext(deltas)
        await deltas.aclose()
        assert (engine.running, engine.dropped) == (0, 3)

    go(work())


def test_an_error_in_one_stream_ends_all() -> None:
    async def work() -> None:
        engine = CountingEngine()
        engine.breaks_after = 1
        planned, wanted = order(engine, n=3)
        with pytest.raises(Unavailable, match="went away"):
            async for _ in stream_texts(engine, planned, wanted):
                pass
        assert engine.running == 0

    go(work())


def test_a_reader_that_does_not_read_holds_the_writers() -> None:
    async def work() -> None:
        engine = CountingEngine()
        planned, wanted = order(engine, n=1)
        deltas = stream_texts(engine, planned, wanted)
        await anext(deltas)
        await let_others_run()
        assert engine.running == 1
        await deltas.aclose()

    go(work())
