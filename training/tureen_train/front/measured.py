"""What was measured of methods: their answers and rewards, in tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tureen_train.config.fronts import FrontRun, MethodPart
from tureen_train.front.answers import AnswerBook, WrittenAnswer
from tureen_train.front.costs import read_training_seconds
from tureen_train.front.grids import Weights, find_point
from tureen_train.front.writing import list_points

Table = NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredMethod:
    """A method at its points.

    Attributes:
        name: the method's.
        points: the names of its points, or only :data:`.grids.EVERYWHERE`.
        answers: by point, in the order of the prompts.
        rewards: ``[points, prompts, objectives]``.
        shares: by point, the shares of the win against the baseline that the judge gave, in the order of the prompts;
            NaN where it gave none. Empty for the baseline, and without a judge.
        ratios: (log π − log π_base) per token, in nats, of each answer of which both are known.
        seconds: of training; None if unknown.
        gib: of training; None if unknown.
    """

    name: str
    points: Sequence[str]
    answers: Mapping[str, Sequence[WrittenAnswer]]
    rewards: Table
    shares: Mapping[str, Sequence[float]]
    ratios: Sequence[float] = ()
    seconds: float | None = None
    gib: float | None = None

    @property
    def means(self) -> Table:
        """The mean rewards ``[points, objectives]``."""
        found: Table = self.rewards.mean(1)
        return found

    def find_row(self, point: str) -> int | None:
        """The row of a point in ``rewards``; a method that no preference reaches has one row for all points."""
        name = find_point(self.points, point)
        return None if name is None else list(self.points).index(name)


@dataclass(frozen=True)
class MeasuredFront:
    """All methods on the same prompts.

    Attributes:
        name: the recipe's.
        objectives: the rewards' names.
        units: of each, as ``deviations``.
        reference: the corner of the hypervolume, in the order of the objectives.
        tolerance: of RiC's front.
        grid: the weights of each point.
        prompts: the texts by their ids.
        methods: by name.
        baseline: the name of the method that others are compared with.
        judge: what compared answers; None without a judge.
    """

    name: str
    objectives: Sequence[str]
    units: Mapping[str, str]
    reference: Sequence[float]
    tolerance: float
    grid: Mapping[str, Weights]
    prompts: Mapping[str, str]
    methods: Mapping[str, MeasuredMethod]
    baseline: str
    judge: str | None


def collect_method(
    part: MethodPart, run: FrontRun, book: AnswerBook, grid: Mapping[str, Weights], prompts: Sequence[str]
) -> MeasuredMethod:
    """Make the tables of a method whose answers are all written and rewarded."""
    points = list_points(part, grid)
    judged = [(point, prompt) for point in grid for prompt in prompts if (part.name, point, prompt) in book.shares]
    shares = {
        point: [book.shares.get((part.name, point, prompt), float("nan")) for prompt in prompts]
        for point in dict.fromkeys(point for point, _ in judged)
    }
    return MeasuredMethod(
        part.name,
        points,
        {point: [book.answers[part.name, point, prompt] for prompt in prompts] for point in points},
        np.array(
            [
                [[book.rewards[part.name, point, prompt][name] for name in run.objectives] for prompt in prompts]
                for point in points
            ]
        ),
        shares,
        _compare_with_base(part.name, points, prompts, book),
        read_training_seconds(part.cost),
        part.cost.gib,
    )


def _compare_with_base(method: str, points: Sequence[str], prompts: Sequence[str], book: AnswerBook) -> list[float]:
    """Compare answers with the base. A text that is read as other tokens than were written is left out."""
    places = [(method, point, prompt) for point in points for prompt in prompts]
    read = [(book.answers[place], book.base[place]) for place in places if place in book.base]
    return [
        (own.logprob - base.logprob) / base.tokens
        for own, base in read
        if own.logprob is not None and own.told == base.tokens
    ]
