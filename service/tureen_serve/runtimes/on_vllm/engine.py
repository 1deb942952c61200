"""A vLLM engine: start it, call it from its own thread, watch it, and start it again if it dies.

vLLM's ``AsyncLLM`` runs in this process and its engine core in another one. The coroutines run on the event loop of a
separate thread, so that unpacking outputs and detokenising do not delay the server's event loop. Other modules use five
methods: ``submit``, ``wait``, ``generate``, ``pool`` and ``likelihood``.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
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
from tureen_serve.runtimes.on_vllm.adapters import AdapterReference
from tureen_serve.runtimes.sources import LoadError

T = TypeVar("T")
LOG = logging.getLogger(__name__)
WATCH_SECONDS = 0.2  # between two looks at the engine
PATIENCE_SECONDS = 2.0  # for tasks to end; a new start also waits this long for each earlier death
HEALTHY_SECONDS = 600.0  # of running after which deaths are counted from 1 again


@dataclass(frozen=True, slots=True)
class PooledState:
    """The hidden state ``[H]`` of a text's last token. ``cached`` counts tokens from the prefix cache."""

    state: Tensor
    cached: int


class VllmEngine:
    """A running engine.

    Args:
        name: the engine's name in errors and logs.
        arguments: the arguments of ``AsyncEngineArgs``.
        hook: whether to hook the workers' runners for the gate.
        tries: how many deaths in a row are followed by a new start. After ten minutes of running the count begins
            again.
        files: the owner of the folder that the engine reads at every start. The engine keeps it alive.

    Attributes:
        failure: None, or a sentence that says why the engine cannot run now.
        dead: whether it has died too often and is not started again.

    Raises:
        LoadError: vLLM refuses the arguments or the model.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], hook: bool, tries: int, files: object = None) -> None:
        self.name = name
        self.failure: str | None = None
        self.dead = False
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
            raise LoadError(f"vLLM cannot start {name}: {_summarise_start_error(error)}") from error
        self._watch = self.submit(self._watch_engine())

    @property
    def config(self) -> Any:
        """vLLM's resolved configuration of the engine."""
        return self._engine.vllm_config

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine on the engine's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's event loop and wait for it. Call it from any other thread."""
        return self.submit(work).result()

    async def generate(
        self, ids: Sequence[int], sampling: Any, adapter: AdapterReference | None, salt: str | None = None
    ) -> AsyncGenerator[Any]:
        """Yield vLLM's outputs for one prompt. Call it on the engine's event loop.

        Args:
            salt: a text that separates prompts in the prefix cache; equal prompts with other salts are not shared.

        Raises:
            Unavailable: the engine is dead.
            Unprocessable: vLLM refuses the request.
            ServerFault: vLLM fails on the request.
        """
        async with self._translate_errors() as engine:
            request = _make_prompt(ids, salt), sampling, self._make_request_id()
            async with aclosing(engine.generate(*request, lora_request=_make_lora_request(adapter))) as outputs:
                async for output in outputs:
                    yield output

    async def pool(
        self, ids: Sequence[int], adapter: AdapterReference | None, salt: str | None = None, fresh: bool = False
    ) -> PooledState:
        """Compute the hidden state of a text's last token, on the engine's event loop. Raises as :meth:`generate`.

        Args:
            fresh: do not read the prefix cache.
        """
        pooling = PoolingParams(task="embed", use_activation=False, skip_reading_prefix_cache=fresh or None)
        async with self._translate_errors() as engine:
            outputs = engine.encode(
                _make_prompt(ids, salt), pooling, self._make_request_id(), lora_request=_make_lora_request(adapter)
            )
            last = [output async for output in outputs][-1]
            return PooledState(last.outputs.data, last.num_cached_tokens)

    async def likelihood(
        self, ids: Sequence[int], start: int, adapter: AdapterReference | None, salt: str | None = None
    ) -> list[float]:
        """Compute log-probabilities in nats of ``ids[start:]``, on the engine's loop. Raises as :meth:`generate`."""
        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = [each async for each in self.generate(ids, sampling, adapter, salt)]
        found = outputs[-1].prompt_logprobs
        return [float(found[place][ids[place]].logprob) for place in range(start, len(ids))]

    def close(self) -> None:
        """Cancel the tasks on the engine's event loop, and end the engine's process and the thread."""
        self._closing = True
        self.wait(_end_tasks())  # first, since vLLM's own reading task logs an error when its engine ends
        self._engine.shutdown()
        self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _make_request_id(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    async def _start(self) -> AsyncLLM:
        claim_engines()
        engine = await asyncio.to_thread(AsyncLLM.from_engine_args, AsyncEngineArgs(**self._arguments))
        if self._hook:
            hooked = await engine.collective_rpc("tureen_hook_runner")
            if not all(hooked):
                engine.shutdown()
                raise ServerFault("the gate could not be put into vLLM's LoRA layers", code="gate_missing")
            LOG.info("%s: gate hooked into %s", self.name, ", ".join(hooked[0]))
        return engine

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[AsyncLLM]:
        """Give the engine, and translate its errors into those of the server."""
        if self.failure:
            raise Unavailable(self.failure, code="engine_dead", retry_after=10)
        try:
            yield self._engine
        except EngineDeadError as error:
            self._note_death()
            raise Unavailable(f"{self.name} died during the request", code="engine_dead", retry_after=10) from error
        except TureenError:
            raise
        except (ValueError, VLLMValidationError) as error:
            raise Unprocessable(f"vLLM refuses the text: {error}") from error
        except Exception as error:
            raise ServerFault(f"{self.name} failed ({type(error).__name__})", code="runtime_failed") from error

    def _note_death(self) -> None:
        """Set the failure, and log it once."""
        if not self.failure:
            self.failure = f"{self.name}: the engine has died and is starting again"
            LOG.error("%s", self.failure)

    async def _watch_engine(self) -> None:
        """Watch the engine until it has died too often, or cannot be watched."""
        try:
            why = f"the engine has died {await self._count_deaths()} times"
        except Exception as error:
            LOG.exception("%s cannot be watched", self.name)
            why = f"the engine cannot be watched ({type(error).__name__})"
        if not self._closing:
            self.failure = f"{self.name}: {why} and is not started again"
            self.dead = True

    async def _count_deaths(self) -> int:
        """Look at the engine several times a second, and start it again if it has died, but not too often."""
        deaths, since = 0, time.monotonic()
        while not self._closing:
            await asyncio.sleep(WATCH_SECONDS)
            if not self._engine.errored:
                continue
            self._note_death()
            deaths = 1 if time.monotonic() - since > HEALTHY_SECONDS else deaths + 1
            if deaths > self._tries:
                break
            await self._start_again(deaths)
            since = time.monotonic()
        return deaths

    async def _start_again(self, death: int) -> None:
        await asyncio.to_thread(self._engine.shutdown)
        await asyncio.sleep(PATIENCE_SECONDS * (death - 1))
        try:
            self._engine = await self._start()
        except Exception:  # the next look counts this as another death
            LOG.exception("%s could not be started again", self.name)
            return
        self.failure = None
        LOG.warning("%s runs again after death %d", self.name, death)


async def _end_tasks() -> None:
    """Cancel all tasks of this event loop, also vLLM's own, and wait until they end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)


def _make_prompt(ids: Sequence[int], salt: str | None) -> Any:
    prompt: dict[str, Any] = {"prompt_token_ids": list(ids)}
    return prompt | ({"cache_salt": salt} if salt else {})


def _make_lora_request(adapter: AdapterReference | None) -> LoRARequest | None:
    return LoRARequest(adapter.name, adapter.number, str(adapter.folder)) if adapter else None


def _summarise_start_error(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return str(error.errors()[0]["msg"])
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
