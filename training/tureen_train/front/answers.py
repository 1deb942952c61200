"""The answers of all methods and their rewards, in files that a broken measurement goes on with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tureen.records.schema import DataError
from tureen_train.runs.line_file import LineFile

Place = tuple[str, str, str]  # method, point, prompt


@dataclass(frozen=True)
class WrittenAnswer:
    """An answer of a method to one prompt at one point of the grid.

    Attributes:
        method, point, prompt: where it belongs.
        text: the answer.
        finished: whether it ended by itself, not at ``max_tokens``.
        tokens: the tokens that were generated for it, those of rejected candidates among them; None if the server does
            not tell.
        seconds: how long the request took.
        logprob: the sum of the log-probabilities of its tokens under the method, in nats; None if it was not told.
        told: the number of these tokens.
    """

    method: str
    point: str
    prompt: str
    text: str
    finished: bool
    tokens: int | None
    seconds: float
    logprob: float | None = None
    told: int = 0

    @property
    def place(self) -> Place:
        """Where it belongs."""
        return self.method, self.point, self.prompt


@dataclass(frozen=True)
class AnswerRewards:
    """The rewards of an answer by name."""

    method: str
    point: str
    prompt: str
    rewards: Mapping[str, float]

    @property
    def place(self) -> Place:
        """Where it belongs."""
        return self.method, self.point, self.prompt


@dataclass(frozen=True)
class JudgedAnswer:
    """The share of the win that an answer has against the baseline's to the same prompt at the same point."""

    method: str
    point: str
    prompt: str
    share: float

    @property
    def place(self) -> Place:
        """Where it belongs."""
        return self.method, self.point, self.prompt


@dataclass(frozen=True)
class BaseReading:
    """The log-probability of an answer under the base, in nats, and the number of its tokens there."""

    method: str
    point: str
    prompt: str
    logprob: float
    tokens: int

    @property
    def place(self) -> Place:
        """Where it belongs."""
        return self.method, self.point, self.prompt


class AnswerBook:
    """The files ``answers``, ``rewards``, ``judged`` and ``base`` of JSON Lines. A row is in its file once it is added.

    Args:
        folder: of the files; they need not exist.

    Raises:
        DataError: a line is of another form.
        ValueError: a line is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._answers = LineFile(folder / "answers.jsonl")
        self._rewards = LineFile(folder / "rewards.jsonl")
        self._judged = LineFile(folder / "judged.jsonl")
        self._base = LineFile(folder / "base.jsonl")
        try:
            self.answers = {each.place: each for each in (WrittenAnswer(**row) for row in self._answers.rows)}
            self.rewards = {each.place: each.rewards for each in (AnswerRewards(**row) for row in self._rewards.rows)}
            self.base = {each.place: each for each in (BaseReading(**row) for row in self._base.rows)}
            self.shares = {each.place: each.share for each in (JudgedAnswer(**row) for row in self._judged.rows)}
        except TypeError as error:
            raise DataError(f"{folder}: a line is no answer ({error}); delete the folder to measure again") from error

    def list_missing(self, method: str, points: Iterable[str], prompts: Sequence[str]) -> list[tuple[str, str]]:
        """The points and prompts that a method has not answered yet."""
        return [
            (point, prompt) for point in points for prompt in prompts if (method, point, prompt) not in self.answers
        ]

    def list_bare(self, method: str, point: str, prompts: Sequence[str]) -> list[WrittenAnswer]:
        """The answers at one point that have no rewards yet, in the order of the prompts."""
        places = [(method, point, prompt) for prompt in prompts]
        return [self.answers[place] for place in places if place not in self.rewards]

    def add_answer(self, answer: WrittenAnswer) -> None:
        """Keep an answer. Threads may call it at the same time."""
        self._answers.append(asdict(answer))
        self.answers[answer.place] = answer

    def add_rewards(self, rewarded: Sequence[AnswerRewards]) -> None:
        """Keep the rewards of answers."""
        self._rewards.extend(map(asdict, rewarded))
        self.rewards |= {each.place: each.rewards for each in rewarded}

    def add_judged(self, judged: Sequence[JudgedAnswer]) -> None:
        """Keep what a judge said of answers."""
        self._judged.extend(map(asdict, judged))
        self.shares |= {each.place: each.share for each in judged}

    def list_unread(self, prompts: Sequence[str]) -> list[WrittenAnswer]:
        """The answers to these prompts whose log-probability is told, and is not read under the base yet."""
        return [
            each
            for each in self.answers.values()
            if each.prompt in prompts and each.logprob is not None and each.place not in self.base
        ]

    def add_reading(self, reading: BaseReading) -> None:
        """Keep what the base says of an answer."""
        self._base.append(asdict(reading))
        self.base[reading.place] = reading
