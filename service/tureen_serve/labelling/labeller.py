"""An engine in this process, asked as a client asks a server: the same route function labels, and no HTTP is spoken."""

import asyncio
import threading
from typing import Any, Self

from tureen.errors import Unavailable
from tureen.labelling.labelling_run import Fingerprint
from tureen.labelling.recipe import Recipe
from tureen.wire import PreferencesReply
from tureen_serve.api.preferences import label_items
from tureen_serve.api.reward_items import PreferencesBody
from tureen_serve.app import load_engine
from tureen_serve.settings import Settings
from tureen_serve.telemetry import Metrics

BOUNDLESS = 2**62


class Labeller:
    """A loaded engine that labels runs of items; threads may ask at once, and their texts share batches.

    Args:
        settings: whose rewards are loaded, with their runtime, dtype, device and limits; policies are not.
        asked: fields of ``wire.PreferencesRequest`` that decide what the labels say.
        recipe: whether a label needs its matrix, and what a tie is.

    Raises:
        LoadError: a reward cannot be served.
        Unavailable: a probe differs from what training saw.
    """

    def __init__(self, settings: Settings, asked: dict[str, Any], recipe: Recipe) -> None:
        self._options = {
            **asked,
            "matrix": recipe.matrix,
            "tie_margin": recipe.tie_margin,
            "on_error": "item",
            "priority": "batch",
        }
        self._gate = threading.Lock()
        self._open = True
        self._metrics = Metrics()
        self._engine = load_engine(only_rewards(settings), self._metrics.observe)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="labelling", daemon=True)
        self._thread.start()
        if self._engine.failure:
            self.close()
            raise Unavailable(self._engine.failure, code="not_ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, items: list[dict[str, Any]], fingerprint: Fingerprint | None) -> PreferencesReply:
        """Label a run.

        Raises:
            TureenError: the whole run cannot be labelled.
            CancelledError: it was closed meanwhile.
        """
        body = PreferencesBody.model_validate({**self._options, "items": items, "fingerprint": fingerprint})
        with self._gate:
            if not self._open:
                raise Unavailable("the engine was closed")
            asking = label_items(body, self._engine, self._metrics)
            asked = asyncio.run_coroutine_threadsafe(asking, self._loop)
        return asked.result()

    def close(self) -> None:
        """Give up what is being labelled, and free the weights."""
        with self._gate:
            self._open = False
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._engine.close()


def only_rewards(settings: Settings) -> Settings:
    """The settings without policies, and with a queue that refuses nobody: whoever asks here waits for the answer."""
    limits = settings.limits.model_copy(update={"queue_tokens": BOUNDLESS})
    return settings.model_copy(update={"families": [], "limits": limits})
