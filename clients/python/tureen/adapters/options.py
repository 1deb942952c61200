"""What every reward function is told: which server it asks, and for which number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from tureen import settings
from tureen.calls.call_options import Patience, Weights
from tureen.calls.chunks import Chunks
from tureen.errors import InvalidRequest, ServerFault, TureenError
from tureen.http_replies import make_fault
from tureen.mixes import Normalize
from tureen.retry import Retries
from tureen.wire import CandidateScore

# A server that is being replaced is back within two minutes; a loop would rather wait than lose a batch.
PATIENT = Retries(limit=20)


class Options(Patience, total=False):
    """The keyword arguments of every reward function: the fields of :class:`Server` and of :class:`Ask`."""

    base_url: str | None
    api_key: str | None
    preferences: Weights | None
    normalize: Normalize
    soup: bool
    calibrated: bool
    truncate: bool
    fingerprint: str | Mapping[str, str] | None
    priority: Literal["interactive", "default", "batch"]
    deadline: float | None


@dataclass(frozen=True)
class Server:
    """What a client is made of.

    Attributes:
        base_url: the server's address; ``TUREEN_BASE_URL`` or http://127.0.0.1:8900 by default.
        api_key: the key; ``TUREEN_API_KEY`` by default.
        timeout: seconds that one request may wait for its answer.
        retries: how often and how patiently a failed request is sent again: for about two minutes by default.
        chunks: how much of a batch goes into one request.
        poll: seconds between two looks at whether the server is ready.
        on_retry: told of each error after which a request is sent again, and of the seconds since its first try failed.

    Raises:
        InvalidRequest: the address is none.
    """

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 600.0
    retries: Retries = PATIENT
    chunks: Chunks = Chunks()
    poll: float = 0.5
    on_retry: Callable[[TureenError, float], object] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", settings.resolve_base_url(self.base_url))

    def patience(self) -> Patience:
        """For the client."""
        return Patience(
            timeout=self.timeout, retries=self.retries, chunks=self.chunks, poll=self.poll, on_retry=self.on_retry
        )


@dataclass(frozen=True)
class RewardQuery:
    """Which numbers are asked for.

    Attributes:
        objectives: what is read; all that is loaded where it is empty.
        preferences: weights over objectives instead; the reward is their weighted sum, calibrated.
        normalize: ``simplex`` divides the weights by their sum; ``none`` uses them as given, negative ones too.
        soup: read the reward model whose adapters are souped by ``preferences``, not the sum.
        calibrated: on the scale of the artifact's mean and deviation, or as the head gave it. A reward without a
            calibration is always as the head gave it.
        truncate: cut what is too long; otherwise such a row fails.
        fingerprint: of the reward models that must be loaded.
        priority: before or after whom this is computed.
        deadline: seconds that a call may last with its tries; None is without end.

    Raises:
        InvalidRequest: two of them contradict each other.
    """

    objectives: tuple[str, ...] = ()
    preferences: Weights | None = None
    normalize: Normalize = "simplex"
    soup: bool = False
    calibrated: bool = True
    truncate: bool = False
    fingerprint: str | Mapping[str, str] | None = None
    priority: Literal["interactive", "default", "batch"] = "default"
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.preferences is None:
            if self.soup:
                raise InvalidRequest("a soup needs `preferences`: {objective: weight}", param="preferences")
            if self.normalize != "simplex":
                raise InvalidRequest("`normalize` says how `preferences` are read: give them too", param="normalize")
        elif self.objectives:
            raise InvalidRequest("`objective` and `preferences` are two ways to say it: give one", param="preferences")
        elif not self.calibrated:
            raise InvalidRequest("weights apply to calibrated rewards: leave `calibrated` on", param="calibrated")

    def options(self) -> dict[str, Any]:
        """For the client's ``score``: a row that fails never fails the others."""
        return {
            "rewards": list(self.objectives) or None,
            "preferences": None if self.preferences is None else dict(self.preferences),
            "normalize": self.normalize,
            "soup": self.soup,
            "truncate": self.truncate,
            "fingerprint": self.fingerprint,
            "priority": self.priority,
            "deadline": self.deadline,
            "on_error": "item",
        }

    def reward(self, row: CandidateScore) -> float | None:
        """The one number, None for a row that failed.

        Raises:
            InvalidRequest: there are several, and nothing says which.
        """
        if row.scores is None or self.preferences is not None:
            return row.reward
        names = self.objectives or tuple(row.scores)
        if len(names) > 1:
            known = ", ".join(sorted(names))
            message = f"several rewards are loaded ({known}): name one as `objective`, or weigh them by `preferences`"
            raise InvalidRequest(message, param="objective")
        return self.objective_score(row, *names)

    def require_reward(self, row: CandidateScore) -> float:
        """The one number.

        Raises:
            TureenError: the row failed.
        """
        if row.error is not None:
            raise make_fault(row.error)
        reward = self.reward(row)
        if reward is None:
            raise ServerFault("the answer holds neither a reward nor an error", code="unreadable_reply")
        return reward

    def objective_score(self, row: CandidateScore, objective: str) -> float | None:
        """One objective's score, None for a row that failed."""
        score = row.scores.get(objective) if row.scores else None
        if score is None:
            return None
        return score.scaled if self.calibrated else score.raw

    def objective_scores(self, row: CandidateScore) -> dict[str, float]:
        """The score of each objective that was asked for by name, or the soup's; none for a row that failed."""
        names = self.objectives or tuple(row.scores or ())
        found = {name: self.objective_score(row, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


def parse_options(objective: str | None, options: Options) -> tuple[Server, RewardQuery]:
    """Whom these keyword arguments ask, and for what.

    Raises:
        InvalidRequest: they contradict each other.
        TypeError: one is unknown.
    """
    wishes: dict[str, Any] = dict(options)
    server = Server(**{each.name: wishes.pop(each.name) for each in fields(Server) if each.name in wishes})
    return server, RewardQuery(objectives=() if objective is None else (objective,), **wishes)


def parse_options_with_environment(objective: str | None, options: Options) -> tuple[Server, RewardQuery]:
    """The same; weighed as ``TUREEN_PREFERENCES`` says where neither an objective nor weights are given."""
    if objective is None and options.get("preferences") is None and (read := settings.read_preferences()):
        return parse_options(None, {**options, "preferences": read[0], "normalize": read[1]})
    return parse_options(objective, options)
