"""``client.reward_models``: change the reward models of a server while it runs. The key needs the scope ``admin``."""

from tureen.calls.request_flows import Calls
from tureen.calls.senders import AsyncRunFlow, RunFlow
from tureen.changes.change_flows import ChangeCalls
from tureen.wire import ModelChange, ShadowReport


class RewardModels:
    """The reward models of the server.

        client.reward_models.load("helpful", path="helpful-v3")

    Every method takes ``deadline``, the longest time for the whole call in seconds. A caller who gives up gives the
    change up too, and the old models stay.
    """

    def __init__(self, run: RunFlow, calls: Calls) -> None:
        self._run = run
        self._calls = ChangeCalls(calls)

    def load(
        self,
        name: str,
        path: str | None = None,
        *,
        rename: bool = False,
        promote: bool = False,
        deadline: float | None = None,
    ) -> ModelChange:
        """Load a version of a reward beside the one that is served, and serve it from then on.

        Args:
            path: its folder, below one of the server's ``load_roots``; without it the current folder is read again.
            rename: serve the only reward of ``path`` under ``name``, although its artifact calls it otherwise.
            promote: take the shadow of the reward.
            deadline: the longest time for the whole call, in seconds.

        Raises:
            Unprocessable: the version cannot be served, or the path is not allowed.
            NotFound: there is no such reward or shadow.
            Conflict: there is no memory for it, or it cannot take the place; ``code`` says which.
        """
        fields = {"path": path, "rename": rename or None, "promote": promote or None, "deadline": deadline}
        return self._run(self._calls.load(name, fields))

    def unload(self, name: str, *, deadline: float | None = None) -> ModelChange:
        """Stop serving a reward, with all rewards of its artifact. Raises the errors of :meth:`load`."""
        return self._run(self._calls.unload(name, {"deadline": deadline}))

    def begin_shadow(
        self,
        name: str,
        path: str | None = None,
        share: float = 0.1,
        *,
        rename: bool = False,
        deadline: float | None = None,
    ) -> ShadowReport:
        """Let another version of a reward score a share of its texts too. Raises the errors of :meth:`load`.

        Args:
            share: of the reward's inputs, up to 1.
            path, rename, deadline: as for :meth:`load`.
        """
        fields = {"path": path, "share": share, "rename": rename or None, "deadline": deadline}
        return self._run(self._calls.begin_shadow(name, fields))

    def report_shadow(self, name: str, *, deadline: float | None = None) -> ShadowReport:
        """Return how far the shadow of a reward agrees with what is served.

        Raises:
            NotFound: the reward has no shadow.
        """
        return self._run(self._calls.report_shadow(name, {"deadline": deadline}))

    def end_shadow(self, name: str, *, deadline: float | None = None) -> ShadowReport:
        """End the shadow of a reward, and return what was known of it. Raises as :meth:`report_shadow`."""
        return self._run(self._calls.end_shadow(name, {"deadline": deadline}))


class AsyncRewardModels:
    """The asynchronous form of :class:`RewardModels`."""

    def __init__(self, run: AsyncRunFlow, calls: Calls) -> None:
        self._run = run
        self._calls = ChangeCalls(calls)

    async def load(
        self,
        name: str,
        path: str | None = None,
        *,
        rename: bool = False,
        promote: bool = False,
        deadline: float | None = None,
    ) -> ModelChange:
        """As :meth:`RewardModels.load`."""
        fields = {"path": path, "rename": rename or None, "promote": promote or None, "deadline": deadline}
        return await self._run(self._calls.load(name, fields))

    async def unload(self, name: str, *, deadline: float | None = None) -> ModelChange:
        """As :meth:`RewardModels.unload`."""
        return await self._run(self._calls.unload(name, {"deadline": deadline}))

    async def begin_shadow(
        self,
        name: str,
        path: str | None = None,
        share: float = 0.1,
        *,
        rename: bool = False,
        deadline: float | None = None,
    ) -> ShadowReport:
        """As :meth:`RewardModels.begin_shadow`."""
        fields = {"path": path, "share": share, "rename": rename or None, "deadline": deadline}
        return await self._run(self._calls.begin_shadow(name, fields))

    async def report_shadow(self, name: str, *, deadline: float | None = None) -> ShadowReport:
        """As :meth:`RewardModels.report_shadow`."""
        return await self._run(self._calls.report_shadow(name, {"deadline": deadline}))

    async def end_shadow(self, name: str, *, deadline: float | None = None) -> ShadowReport:
        """As :meth:`RewardModels.end_shadow`."""
        return await self._run(self._calls.end_shadow(name, {"deadline": deadline}))
