"""The texts that wait for a place in a batch of running texts, and how many texts the batch may have."""

from collections.abc import Callable, Hashable, Sequence

from tureen_serve.runtimes.contract import GenerationJob
from tureen_serve.runtimes.on_transformers.running_text import RunningText, StepLimits


class TextQueue:
    """Jobs that wait, first come first served. Texts that had begun and paused go before all others.

    Where memory has run out, fewer texts may run. For each time that as many texts as may run have ended, one more may.

    Args:
        limits: the limits of the batch.
        begin: makes the running text of a job.
    """

    def __init__(self, limits: StepLimits, begin: Callable[[Hashable, GenerationJob], RunningText]) -> None:
        self._limits = limits
        self._begin = begin
        self._room: float = limits.rows
        self._waiting: dict[Hashable, GenerationJob] = {}
        self._paused: dict[Hashable, RunningText] = {}  # those of the waiting jobs that have begun

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Hashable, job: GenerationJob) -> None:
        """Let a job wait."""
        self._waiting[key] = job

    def drop(self, key: Hashable) -> None:
        """Forget the job of a key, if it waits."""
        self._waiting.pop(key, None)
        self._paused.pop(key, None)

    def pause(self, texts: Sequence[RunningText]) -> None:
        """Let texts wait, before all others. They go on from the tokens that they have."""
        for each in texts:
            each.over = False
        self._paused |= {each.key: each for each in texts}
        self._waiting = {each.key: each.job for each in texts} | self._waiting

    def narrow(self, texts: int) -> None:
        """Set how many texts may run, since memory has run out; at least one may."""
        self._room = max(texts, 1)

    def widen(self, ended: int) -> None:
        """Note that texts have ended."""
        self._room = min(self._limits.rows, self._room + ended / self._room)

    def admit(self, running: Sequence[RunningText]) -> list[RunningText]:
        """Take the jobs that may join the running texts, in order. If none runs, the first may whatever its size."""
        joining: list[RunningText] = []
        if not running and not self._paused:
            self._room = self._limits.rows
        for key, job in list(self._waiting.items()):
            paused = self._paused.get(key)
            length = len(job.ids if paused is None else paused.ids)
            if (running or joining) and not self._fits(running, joining, job, length):
                break
            joining.append(paused or self._begin(key, job))
            self.drop(key)
        return joining

    def _fits(
        self, running: Sequence[RunningText], joining: Sequence[RunningText], job: GenerationJob, length: int
    ) -> bool:
        """Tell whether a job may join too. The first to join in a step may have a prompt of any length."""
        jobs = [each.job for each in (*running, *joining)] + [job]
        prompts = [len(each.ids) for each in joining] + [length]
        longest = max(len(each.ids) + each.sampling.max_tokens for each in jobs)
        quick = len(prompts) == 1 or len(prompts) * max(prompts) <= self._limits.prefill_tokens
        return quick and len(jobs) <= self._room and len(jobs) * longest <= self._limits.cache_tokens
