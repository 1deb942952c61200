"""One vLLM engine: started, driven from a thread of its own, watched, and started again when it dies.

vLLM's ``AsyncLLM`` stands in this process and its engine core in another. Its coroutines run on the loop of a thread
here, never on the server's, so that unpacking outputs and detokenising do not hold up the event loop. Everything else
in :mod:`tureen_serve.runtimes` sees five calls: ``submit``, ``wait``, ``generate``, ``pool`` and ``likelihood``.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor
from vllm import PoolingParams, SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from tureen.errors import ServerFault, TureenError, Unavailable, Unprocessable
from tureen_serve.process_environment import claim_engines
from tureen_serve.runtimes.artifacts import LoadError
from tureen_serve.runtimes.on_vllm.adapters import AdapterReference

T = TypeVar("T")
LOG = logging.getLogger(__name__)
WATCH_SECONDS = 0.2
PATIENCE = 2.0
HEALTHY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class PooledState:
    """The last token's hidden state ``[H]`` of a text, and how many of its tokens were not computed again."""

    state: Tensor
    cached: int


class VllmEngine:
    """A running engine.

    Args:
        name: what errors and logs call it.
        arguments: of ``AsyncEngineArgs``.
        hook: whether the workers' runners are to be hooked for the gate.
        tries: how often in a row it is started again after a death; a run of ten minutes starts the count anew.
        files: owner of the folder that it reads, at its next start too: kept as long as the engine.

    Attributes:
        failure: None, or the sentence that says why it cannot run now.

    Raises:
        LoadError: vLLM refuses the arguments or the model.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], hook: bool, tries: int, files: object = None) -> None:
        self.name = name
        self.failure: str | None = None
        self._arguments, self._hook, self._tries, self._files = dict(arguments), hook, tries, files
        self._numbers = count()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"vllm {name}", daemon=True)
        self._thread.start()
        try:
            self._engine = self.wait(self._start())
        except Exception as error:
            self._end_loop()
            raise LoadError(f"vLLM cannot start {name}: {_last_words(error)}") from error
        self._watch = self.submit(self._watch_over())

    @property
    def config(self) -> Any:
        """vLLM's own configuration of it, as resolved."""
        return self._engine.vllm_config

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop and wait for it; from any other thread."""
        return self.submit(work).result()

    async def generate(
        self, ids: Sequence[int], sampling: Any, adapter: AdapterReference | None, salt: str | None = None
    ) -> AsyncGenerator[Any]:
        """vLLM's outputs for one prompt; on the engine's loop.

        Raises:
            Unavailable: the engine is dead.
            Unprocessable: vLLM refuses the request.
            ServerFault: it fails on it.
        """
        async with self._mapped() as engine:
            outputs = engine.generate(_prompt(ids, salt), sampling, self._number(), lora_request=_lora(adapter))
            async for output in outputs:
                yield output

    async def pool(
        self, ids: Sequence[int], adapter: AdapterReference | None, salt: str | None = None, fresh: bool = False
    ) -> PooledState:
        """The last token's hidden state of one text; on the engine's loop. Raises as :meth:`generate` does."""
        pooling = PoolingParams(task="embed", use_activation=False, skip_reading_prefix_cache=fresh or None)
        async with self._mapped() as engine:
            outputs = engine.encode(_prompt(ids, salt), pooling, self._number(), lora_request=_lora(adapter))
            last = [output async for output in outputs][-1]
            return PooledState(last.outputs.data, last.num_cached_tokens)

    async def likelihood(
        self, ids: Sequence[int], start: int, adapter: AdapterReference | None, salt: str | None = None
    ) -> list[float]:
        """Log-probability in nats of each of ``ids[start:]``; on the loop. Raises as :meth:`generate` does."""
        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = [each async for each in self.generate(ids, sampling, adapter, salt)]
        found = outputs[-1].prompt_logprobs
        return [float(found[place][ids[place]].logprob) for place in range(start, len(ids))]

    def close(self) -> None:
        """End the engine's process and the thread; what still runs on its loop is cancelled."""
        self._closing = True
        self.wait(_end_tasks())  # first, since vLLM's own reader would cry out at the end of its engine
        self._engine.shutdown()
        self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _number(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    async def _start(self) -> AsyncLLM:
        claim_engines()
        engine = await asyncio.to_thread(AsyncLLM.from_engine_args, AsyncEngineArgs(**self._arguments))
        if self._hook:
            hooked = await engine.collective_rpc("tureen_hook_runner")
            if not all(hooked):
                engine.shutdown()
                raise ServerFault("the gate did not come into vLLM's LoRA layers", code="gate_missing")
            LOG.info("%s: gate hooked into %s", self.name, ", ".join(hooked[0]))
        return engine

    @asynccontextmanager
    async def _mapped(self) -> AsyncIterator[AsyncLLM]:
        """The engine, and its errors as ours."""
        if self.failure:
            raise Unavailable(self.failure, code="engine_dead", retry_after=10)
        try:
            yield self._engine
        except EngineDeadError as error:
            self._mourn()
            raise Unavailable(f"{self.name} has died under the request", code="engine_dead", retry_after=10) from error
        except TureenError:
            raise
        except (ValueError, VLLMValidationError) as error:
            raise Unprocessable(f"vLLM refuses the text: {error}") from error
        except Exception as error:
            raise ServerFault(f"{self.name} failed ({type(error).__name__})", code="runtime_failed") from error

    def _mourn(self) -> None:
        if not self.failure:
            self.failure = f"{self.name}: the engine has died and is started again"
            LOG.error("%s", self.failure)

    async def _watch_over(self) -> None:
        """See a death within a fraction of a second, busy or idle, and start again."""
        deaths, since = 0, time.monotonic()
        while not self._closing:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._engine.errored:
                continue
            self._mourn()
            deaths = 1 if time.monotonic() - since > HEALTHY_SECONDS else deaths + 1
            if deaths > self._tries:
                self.failure = f"{self.name}: the engine has died {deaths} times; restart the server"
                LOG.error("%s", self.failure)
                return
            await self._revive(deaths)
            since = time.monotonic()

    async def _revive(self, death: int) -> None:
        await asyncio.to_thread(self._engine.shutdown)
        await asyncio.sleep(PATIENCE * (death - 1))
        try:
            self._engine = await self._start()
        except Exception:  # counted as another death by the next look
            LOG.exception("%s could not be started again", self.name)
            return
        self.failure = None
        LOG.warning("%s runs again after death %d", self.name, death)


async def _end_tasks() -> None:
    """Cancel what still runs on this loop, vLLM's own tasks too, and see it end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE)


def _prompt(ids: Sequence[int], salt: str | None) -> Any:
    prompt: dict[str, Any] = {"prompt_token_ids": list(ids)}
    return prompt | ({"cache_salt": salt} if salt else {})


def _lora(adapter: AdapterReference | None) -> LoRARequest | None:
    return LoRARequest(adapter.name, adapter.number, str(adapter.folder)) if adapter else None


def _last_words(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
