"""The engine's process dies under load: everybody is answered, nothing hangs, and it runs again by itself."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from serve.experts import texts
from vllm_runtime.vllm_writing import EIGHT, expected, job, told, write
from waiting import wait_until

from tureen.errors import Unavailable
from tureen_serve.inference.generator_lane import GeneratorLane
from tureen_serve.inference.scorer_lane import ScorerLane
from tureen_serve.runtimes.contract import Row

pytestmark = pytest.mark.anyio
PATIENCE = 300


def kill(engine: Any) -> None:
    """The engine core and its workers, without a word."""
    (core,) = engine._engine.engine_core.resources.engine_manager.processes
    for process in [*psutil.Process(core.pid).children(recursive=True), psutil.Process(core.pid)]:
        os.kill(process.pid, signal.SIGKILL)


async def back(runtime: Any) -> None:
    await wait_until(lambda: runtime.failure is None, PATIENCE)


async def test_a_generator_that_is_killed_answers_all_and_comes_back(generator: Any, base: Path) -> None:
    lane = GeneratorLane("tiny", generator)
    begun = asyncio.Event()

    async def one(number: int) -> str:
        try:
            async for _ in lane.stream(job(texts([20])[0], EIGHT[number % 8], max_tokens=400, seed=number)):
                begun.set()
        except Unavailable as error:
            return error.code
        return "finished"

    tasks = [asyncio.create_task(one(number)) for number in range(24)]
    await asyncio.wait_for(begun.wait(), PATIENCE)
    kill(generator._engine)
    answers = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert set(answers) <= {"engine_dead", "finished"}
    assert "engine_dead" in answers
    assert lane.failure == "tiny: the engine has died and is starting again"
    with pytest.raises(Unavailable) as caught:
        await anext(lane.stream(job(texts([20])[0], ())))
    assert (caught.value.code, caught.value.retry_after) == ("engine_dead", 10)
    await back(lane)
    asked = job(texts([20])[0], EIGHT[4])
    ((deltas,)) = await write(lane, [asked])
    tokens, found = told(deltas)
    torch.testing.assert_close(found, expected(base, asked, tokens), atol=1e-4, rtol=0)


async def test_a_scorer_that_is_killed_idle_is_noticed_and_comes_back(scorer: Any) -> None:
    row = Row(texts([30])[0], (("helpful", 1.0),))
    (before,) = scorer.run([row])
    kill(scorer._engine)
    await wait_until(lambda: scorer.failure is not None, PATIENCE)
    assert "has died" in scorer.failure
    lane = ScorerLane("tiny-scores", scorer, 2**20)
    with pytest.raises(Unavailable, match="has died"):
        lane.submit([row])
    await back(scorer)
    (after,) = await asyncio.gather(*lane.submit([row]))
    assert after.values == pytest.approx(before.values, abs=1e-6)


SERVER = """
import sys, time
from tureen_serve.process_environment import stay_offline
stay_offline()
from tureen_serve.runtimes.on_vllm.engine import VllmEngine

if __name__ == "__main__":
    arguments = {"model": sys.argv[1], "dtype": "float32", "enforce_eager": True, "kv_cache_memory_bytes": 2**26}
    engine = VllmEngine("tiny", arguments, False, 0)
    (core,) = engine._engine.engine_core.resources.engine_manager.processes
    print("core", core.pid, flush=True)
    time.sleep(600)
"""


def test_an_engine_ends_with_its_server(base: Path, tmp_path: Path) -> None:
    """Otherwise it would hold the GPU after a server that was killed."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    server = subprocess.Popen([sys.executable, script, base], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        told = next(line for line in server.stdout if line.startswith("core "))
        core = psutil.Process(int(told.split()[1]))
        family = [core, *core.children(recursive=True)]
        server.kill()
        server.wait()
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        assert not alive
    finally:
        server.kill()
        if server.stdout is not None:
            server.stdout.close()
