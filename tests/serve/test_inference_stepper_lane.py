"""The generator's lane over a real tiny model: streams, refusals, cancellation, failure."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from serve.experts import causal, stack, texts

from tureen.errors import ServerFault, Unavailable, Unprocessable
from tureen_core.base import load_tokenizer
from tureen_serve.inference.demand import DEADLINE
from tureen_serve.inference.lane import LaneRun
from tureen_serve.inference.stepper_lane import StepperLane
from tureen_serve.runtimes.contract import GenerationJob, TextDelta
from tureen_serve.runtimes.on_transformers.generator import TransformersStepper
from tureen_serve.runtimes.on_transformers.rank_gate import attach_adapters
from tureen_serve.runtimes.on_transformers.running_text import StepLimits
from tureen_serve.runtimes.sampling_fields import Sampling

pytestmark = pytest.mark.anyio

ENDLESS = ((2, -100.0),)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.base(tmp_path_factory.mktemp("lane") / "base")


@pytest.fixture
def stepper(base: Path) -> TransformersStepper:
    model = causal(base)
    return TransformersStepper(model, attach_adapters(model, stack()), load_tokenizer(base), StepLimits(rows=4))


@asynccontextmanager
async def lane(stepper: TransformersStepper, **options: Any) -> AsyncIterator[StepperLane]:
    found = StepperLane("tiny", stepper, **options)
    try:
        yield found
    finally:
        await found.close()


def job(number: int = 0, **sampling: Any) -> GenerationJob:
    given = {"max_tokens": 8, "seed": number, "logprobs": 0, "logit_bias": ENDLESS, **sampling}
    return GenerationJob(texts([5 + number])[0], Sampling(**given), (("academy", 1.0),))


async def collect(one: StepperLane, asked: GenerationJob) -> list[TextDelta]:
    return [delta async for delta in one.stream(asked)]


async def test_streams_side_by_side_are_the_streams_alone(stepper: TransformersStepper) -> None:
    async with lane(stepper) as one:
        alone = [await collect(one, job(number)) for number in range(6)]
        together = await asyncio.gather(*(collect(one, job(number)) for number in range(6)))
    for single, crowded in zip(alone, together, strict=True):
        assert [delta.logprobs[0].id for delta in crowded] == [delta.logprobs[0].id for delta in single]
        assert crowded[-1].finish == "length"


async def test_deltas_come_while_the_text_is_written(stepper: TransformersStepper) -> None:
    async with lane(stepper) as one:
        stream = one.stream(job(max_tokens=400))
        first = await anext(stream)
        assert first.tokens == 1
        assert one.running == 1
        await stream.aclose()


async def test_closing_a_stream_frees_its_place(stepper: TransformersStepper) -> None:
    async with lane(stepper) as one:
        stream = one.stream(job(max_tokens=400))
        await anext(stream)
        await stream.aclose()
        assert len(await collect(one, job(1, max_tokens=3))) == 3
        assert (one.running, one.waiting) == (0, 0)


async def test_a_cancelled_reader_frees_its_place(stepper: TransformersStepper) -> None:
    async with lane(stepper) as one:
        reader = asyncio.create_task(collect(one, job(max_tokens=400)))
        await collect(one, job(1, max_tokens=2))
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await collect(one, job(1, max_tokens=2))
        assert one.running == 0


async def test_a_job_that_cannot_run_is_refused_at_the_door(stepper: TransformersStepper) -> None:
    async with lane(stepper) as one:
        with pytest.raises(Unprocessable, match="lower max_tokens"):
            await collect(one, job(max_tokens=4000))


async def test_more_jobs_than_may_wait_are_refused(stepper: TransformersStepper) -> None:
    async with lane(stepper, queue_jobs=2) as one:
        streams = [one.stream(job(number, max_tokens=400)) for number in range(4)]
        for stream in streams:
            await anext(stream)
        waiting = [asyncio.create_task(collect(one, job(5 + number, max_tokens=2))) for number in range(2)]
        await asyncio.sleep(0)
        assert one.waiting == 2
        with pytest.raises(Unavailable) as caught:
            await collect(one, job(9))
        assert caught.value.code == "queue_full"
        assert caught.value.retry_after is not None
        assert 1 <= caught.value.retry_after <= 60
        for stream in streams:
            await stream.aclose()
        assert [len(deltas) for deltas in await asyncio.gather(*waiting)] == [2, 2]


async def test_a_text_that_its_queue_cannot_begin_in_time_is_refused_at_once(stepper: TransformersStepper) -> None:
    async with lane(stepper) as one:
        streams = [one.stream(job(number, max_tokens=400)) for number in range(4)]
        for stream in streams:
            await anext(stream)
        waiting = [asyncio.create_task(collect(one, job(5 + number, max_tokens=50))) for number in range(2)]
        await asyncio.sleep(0)
        one.speed.expect(0.5)
        now = asyncio.get_running_loop().time()
        token = DEADLINE.set(asyncio.timeout_at(now + 30))
        with pytest.raises(Unavailable, match="the queue of tiny needs about") as caught:
            await collect(one, job(9))
        assert (caught.value.code, caught.value.retry_after) == ("queue_full", 60)
        DEADLINE.set(asyncio.timeout_at(now + 10**6))
        waiting.append(asyncio.create_task(collect(one, job(8, max_tokens=2))))
        await asyncio.sleep(0)
        DEADLINE.reset(token)
        for stream in streams:
            await stream.aclose()
        assert [len(deltas) for deltas in await asyncio.gather(*waiting)] == [50, 50, 2]


async def test_a_failed_step_fails_who_runs_and_the_lane_lives(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lane(stepper) as one:
        before = await collect(one, job())
        with monkeypatch.context() as patch:
            patch.setattr(stepper._rows, "advance", lambda tokens: 1 / 0)
            found = await asyncio.gather(*(collect(one, job(number)) for number in range(2)), return_exceptions=True)
        assert [each.code for each in found if isinstance(each, ServerFault)] == ["runtime_failed"] * 2
        after = await collect(one, job())
        assert [delta.logprobs[0].id for delta in after] == [delta.logprobs[0].id for delta in before]
        assert one.failure is None


async def test_a_dead_runtime_ends_every_stream(stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> None:
        raise Unavailable("the accelerator has failed", code="engine_dead")

    async with lane(stepper) as one:
        monkeypatch.setattr(stepper, "step", dead)
        found = await asyncio.gather(*(collect(one, job(number)) for number in range(2)), return_exceptions=True)
        assert [each.code for each in found if isinstance(each, Unavailable)] == ["engine_dead"] * 2
        assert one.failure is not None
        assert "the accelerator has failed" in one.failure


async def test_closing_ends_what_runs(stepper: TransformersStepper) -> None:
    one = StepperLane("tiny", stepper)
    stream = one.stream(job(max_tokens=400))
    await anext(stream)
    reader = asyncio.ensure_future(_rest(stream))
    await one.close()
    with pytest.raises(Unavailable) as caught:
        await reader
    assert caught.value.code == "draining"
    with pytest.raises(Unavailable):
        await collect(one, job())


async def _rest(stream: AsyncIterator[TextDelta]) -> list[TextDelta]:
    return [delta async for delta in stream]


async def test_the_model_runs_on_the_lanes_own_thread(
    stepper: TransformersStepper, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    step = stepper.step

    def watched() -> Any:
        threads.add(threading.current_thread().name)
        return step()

    monkeypatch.setattr(stepper, "step", watched)
    async with lane(stepper) as one:
        await collect(one, job())
    assert threads == {"lane tiny"}


async def test_what_ran_is_told(stepper: TransformersStepper) -> None:
    told: list[LaneRun] = []
    async with lane(stepper, observe=told.append) as one:
        await collect(one, job(max_tokens=5))
        assert one.speed.recent > 0
    assert sum(ran.tokens for ran in told) == 5
    assert {ran.rows for ran in told} == {1}
