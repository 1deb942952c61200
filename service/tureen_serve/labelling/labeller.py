"""Label items with an engine in this process. The function of the route ``/v1/preferences`` is called without HTTP."""

import asyncio
import threading
from typing import Any, Self

from tureen.errors import Unavailable
from tureen.labelling.asked_runs import Fingerprint
from tureen.labelling.recipe import Recipe
from tureen.wire import PreferencesReply
from tureen_serve.api.preferences import label_items
from tureen_serve.api.reward_items import PreferencesBody
from tureen_serve.app import load_engine
from tureen_serve.settings import Settings
from tureen_serve.telemetry import Metrics

BOUNDLESS = 2**62
WATCH_SECONDS = 0.1


class Labeller:
    """Loads rewards and labels runs of items. Several threads may call it at once; their texts share batches.

    Args:
        settings: names the rewards, and their runtime, dtype, device and limits. Policies are not loaded.
        asked: fields of ``wire.PreferencesRequest`` for every run: rewards, preferences and others.
        recipe: whether a label needs a matrix, and the margin of a tie.

    Raises:
        LoadError: a reward cannot be loaded.
        Unavailable: the score of a probe differs from the score in training.
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
        asyncio.run_coroutine_threadsafe(self._watch_engine(), self._loop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, items: list[dict[str, Any]], fingerprint: Fingerprint | None) -> PreferencesReply:
        """Label a run of items.

        Args:
            fingerprint: of each reward, if the labels must come from certain versions.

        Raises:
            TureenError: the whole run cannot be labelled; ``Unavailable`` if a runtime is dead or stuck.
            CancelledError: the labeller was closed while the run was labelled.
        """
        body = PreferencesBody.model_validate({**self._options, "items": items, "fingerprint": fingerprint})
        with self._gate:
            if not self._open:
                raise Unavailable("the labeller is closed; make a new one")
            asked = asyncio.run_coroutine_threadsafe(self._label(body), self._loop)
        return asked.result()

    async def _label(self, body: PreferencesBody) -> PreferencesReply:
        with self._engine.hold() as engine:
            return await label_items(body, engine, self._metrics)

    async def _watch_engine(self) -> None:
        while (death := self._engine.death) is None:
            await asyncio.sleep(WATCH_SECONDS)
        self._engine.abandon(Unavailable(death, code="engine_dead"))

    def close(self) -> None:
        """Cancel running calls and free the weights."""
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
    """Return the settings without policies and with an unlimited queue, because all callers here wait for labels."""
    limits = settings.limits.model_copy(update={"queue_tokens": BOUNDLESS})
    return settings.model_copy(update={"families": [], "limits": limits})
