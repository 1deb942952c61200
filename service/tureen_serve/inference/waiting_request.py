"""A request that waits until the models of all its rewards are loaded."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from tureen.errors import TureenError
from tureen_serve.inference.pooled_model import Key, PooledModel
from tureen_serve.inference.registry import ServedBackbone
from tureen_serve.runtimes.root_folder import Source


class WaitingRequest:
    """A request and the models that it needs. It gets all of them at once, and holds none of them before.

    So no request that holds a model waits for another one, and every model that is held is given back in the end.

    Args:
        sources: what it needs, by key.
        params: the field of the request that names each source, for errors.
        leases: closed when the request ends.
    """

    def __init__(self, sources: Mapping[Key, Source], params: Mapping[Key, str], leases: ExitStack) -> None:
        self.sources = sources
        self._params = params
        self._leases = leases
        self._granted: asyncio.Future[list[ServedBackbone]] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        """Whether it waits no more: it was granted or refused, or its caller has left."""
        return self._granted.done()

    async def wait(self) -> list[ServedBackbone]:
        """Wait for the models.

        Raises:
            TureenError: a model cannot be loaded.
        """
        return await self._granted

    def grant(self, models: Sequence[PooledModel], leave: Callable[[PooledModel], None]) -> None:
        """Give the request its models. ``leave`` is called with each when the request ends."""
        for model in models:
            model.users += 1
            self._leases.callback(leave, model)
        self._granted.set_result([model.served for model in models])

    def refuse(self, error: Exception, key: Key | None = None) -> None:
        """End the wait with an error, unless it has ended.

        Args:
            key: the source at fault, whose field the error names; None if it has none or names one already.
        """
        if self.done:
            return
        if isinstance(error, TureenError):
            error = error.copy(error.param if key is None else self._params[key])
        self._granted.set_exception(error)
        self._granted.exception()  # its caller may be leaving, and then nobody reads it
