"""Runs of lines that are being asked: several at once, in order, and each is held until it is taken."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from tureen.labelling import items
from tureen.labelling.items import Line
from tureen.wire import PreferencesReply

Fingerprint = dict[str, str]
FIRST = 8  # items in the first run
AIM = 2.0  # seconds that a reply may take before runs stop growing

LabelRun = Callable[[list[dict[str, Any]], Fingerprint | None], PreferencesReply]
"""Labels items of format ``full`` with ``on_error: item``, by the models of that fingerprint if one is given."""


@dataclass(frozen=True)
class KeptReply:
    """A reply to lines that stand behind unanswered ones: the place of its first line (from 0), and their number."""

    start: int
    count: int
    reply: PreferencesReply

    def dump(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {"start": self.start, "count": self.count, "reply": self.reply.model_dump(mode="json")}

    @classmethod
    def load(cls, document: dict[str, Any]) -> Self:
        """Read what :meth:`dump` wrote."""
        return cls(document["start"], document["count"], PreferencesReply.model_validate(document["reply"]))


@dataclass(frozen=True)
class AskedRun:
    """Lines that were asked together. ``start`` is the place of the first; without items there is nothing to ask."""

    start: int
    lines: list[Line]
    future: Future[PreferencesReply] | None

    @property
    def answered(self) -> bool:
        """Whether there is a reply, or none is needed."""
        return self.future is None or (self.future.done() and self.future.exception() is None)

    def read_reply(self) -> PreferencesReply | None:
        """Return the reply; None if nothing was asked. Raises what the asking raised."""
        return None if self.future is None else self.future.result()


class RunSize:
    """The number of items in the next run: small at first, and no more than are answered in some seconds.

    So what a break costs is a few seconds of work, however slow the models are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.items = min(FIRST, most)

    def note(self, seconds: float) -> None:
        """Learn how long a reply took."""
        if seconds < AIM:
            self.items = min(self._most, 2 * self.items)
        elif seconds > 2 * AIM:
            self.items = max(1, self.items // 2)


class AskedRuns:
    """Asks for the labels of lines, ``ahead`` runs at once.

    Args:
        ask: labels a run of items; threads call it.
        lines: the lines from the place ``start`` on.
        most: items in one run, at most.
        ahead: the number of runs that are asked at once.
        fingerprint: the models that must answer; if it is empty, those of the first reply.
        start: the number of lines before these.
        kept: replies that an earlier call left; these lines are not asked again.
    """

    def __init__(
        self,
        ask: LabelRun,
        lines: Iterator[Line],
        most: int,
        ahead: int,
        fingerprint: Fingerprint,
        start: int = 0,
        kept: Sequence[KeptReply] = (),
    ) -> None:
        self._ask, self._lines, self._ahead, self._place = ask, lines, ahead, start
        self._kept = {each.start: each for each in kept}
        self._known = dict(fingerprint)
        self._size = RunSize(most)
        self._waiting: deque[AskedRun] = deque()

    def wait(self) -> bool:
        """Wait until the first run is answered, or has failed. Returns False if no lines are left."""
        while len(self._waiting) < self._ahead and (run := self._begin_run()) is not None:
            self._waiting.append(run)
        if not self._waiting:
            return False
        if self._waiting[0].future is not None:
            wait([self._waiting[0].future])
        return True

    def take(self) -> tuple[list[Line], PreferencesReply | None]:
        """Take the first run. Raises what its asking raised."""
        run = self._waiting.popleft()
        reply = run.read_reply()
        self._known.update(reply.fingerprint if reply else {})
        return run.lines, reply

    def list_later(self) -> list[KeptReply]:
        """List the replies that have come and were not taken."""
        return [
            KeptReply(run.start, len(run.lines), reply)
            for run in self._waiting
            if run.answered and (reply := run.read_reply()) is not None
        ]

    @property
    def first_place(self) -> int | None:
        """The place of the first line of the first run; None without runs."""
        return self._waiting[0].start if self._waiting else None

    def is_answered(self) -> bool:
        """Whether :meth:`take` returns at once, and without an error."""
        return bool(self._waiting) and self._waiting[0].answered

    def _begin_run(self) -> AskedRun | None:
        start, kept = self._place, self._kept.pop(self._place, None)
        free = min(self._kept, default=start + self._size.items) - start
        lines = list(islice(self._lines, kept.count if kept else min(self._size.items, free)))
        if not lines:
            return None
        self._place += len(lines)
        asked = items.list_requests(lines)
        if not asked:
            return AskedRun(start, lines, None)
        if kept:
            done: Future[PreferencesReply] = Future()
            done.set_result(kept.reply)
            return AskedRun(start, lines, done)
        future: Future[PreferencesReply] = Future()
        # a daemon, so that a program that ends does not wait for a reply that nobody reads
        work = (future, asked, dict(self._known) or None)
        threading.Thread(target=self._answer, args=work, name="labelling", daemon=True).start()
        return AskedRun(start, lines, future)

    def _answer(
        self, future: Future[PreferencesReply], asked: list[dict[str, Any]], fingerprint: Fingerprint | None
    ) -> None:
        began = time.monotonic()
        try:
            reply = self._ask(asked, fingerprint)
        except BaseException as error:  # whoever waits is told of any
            future.set_exception(error)
        else:
            self._size.note(time.monotonic() - began)
            future.set_result(reply)
