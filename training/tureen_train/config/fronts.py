"""The recipe of a front: methods of personalising, measured at the same preferences on the same prompts."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tureen.wire import SoupOptions
from tureen_core.preference import NAME
from tureen_train.config.parts import RecipePart
from tureen_train.config.rollouts import ArtifactSource, FunctionSource, JudgeSource, ServerSource

MOST_OBJECTIVES = 5  # of an exact hypervolume
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
GivenReward = Annotated[ArtifactSource | ServerSource | FunctionSource, Field(discriminator="source")]
GivenJudge = Annotated[JudgeSource | ArtifactSource | ServerSource, Field(discriminator="source")]


class GivenServer(RecipePart):
    """A server that methods write with: one that runs at ``url``, or one that is started while answers are written.

    ``start`` holds the arguments of ``tureen-serve``; ``--port`` is added. The key is that in ``TUREEN_API_KEY``.
    """

    url: str | None = None
    start: list[str] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "GivenServer":
        if (self.url is None) == (self.start is None):
            raise ValueError("give `url` of a server that runs, or `start`, the arguments of tureen-serve")
        return self


class TrainingCost(RecipePart):
    """What training a method cost. ``runs`` are its run folders, whose seconds are summed; or the seconds are told.

    ``gib`` is the most memory that training took, which run folders do not tell.
    """

    runs: list[str] = []
    seconds: float | None = Field(default=None, ge=0)
    gib: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _told_once(self) -> "TrainingCost":
        if self.runs and self.seconds is not None:
            raise ValueError("seconds: they are those of the `runs`; give one of them")
        return self


class MethodPart(RecipePart):
    """A way of personalising.

    ``steering`` says how preferences reach it: ``preferences`` as the field of our requests (soups, words and reward
    tags alike), ``none`` not at all, so that without ``candidates`` it is measured once for all preferences, and
    ``models`` as another model for each point of the grid, named in ``models`` as ``{"a=0.5+b=0.5": model}``; it is
    measured at these points only.

    ``names`` gives objectives the names that the server's experts have. ``candidates`` writes that many answers and
    keeps the one with the largest weighted reward of the server's rewards, and ``soup`` is the request's field.
    ``sentences`` are written into the prompts before they are sent, as a family that is steered by words writes them:
    those whose weight reaches 0.1, the largest weight first. P-Soups needs them beside its soup (RLPHF, arXiv
    2310.11564), and a server of another make has no other way to be told.
    """

    name: Name
    server: Name
    model: str | None = None
    steering: Literal["preferences", "none", "models"] = "preferences"
    models: dict[str, str] = {}
    names: dict[str, str] = {}
    candidates: int | None = Field(default=None, ge=2, le=64)
    soup: SoupOptions | None = None
    sentences: dict[Name, str] = {}
    cost: TrainingCost = TrainingCost()

    @model_validator(mode="after")
    def _fits(self) -> "MethodPart":
        if (self.steering == "models") != bool(self.models):
            raise ValueError("models: it is needed with steering: models, and only there")
        if self.models and self.model is not None:
            raise ValueError("model: the models are in `models`; leave the key out")
        return self

    @property
    def is_steered(self) -> bool:
        """Whether preferences change what is written."""
        return self.steering != "none" or bool(self.sentences)


class Grid(RecipePart):
    """The preferences at which methods are measured.

    By default eleven points for two objectives, the thirteen of RiC for three, and for more a simplex lattice with
    ``steps: 3``. With ``steps`` the weights are multiples of 1/steps. ``points`` gives them one by one.
    """

    steps: int | None = Field(default=None, ge=1, le=100)
    points: list[dict[str, float]] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> "Grid":
        if self.steps is not None and self.points is not None:
            raise ValueError("points: give `steps` or `points`, not both")
        return self


class FrontSampling(RecipePart):
    """How answers are written, by all methods alike. ``concurrency`` requests run at a time."""

    max_tokens: int = Field(default=96, ge=1)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    concurrency: int = Field(default=8, ge=1)
    timeout: float = Field(default=600.0, gt=0)


class FrontRun(RecipePart):
    """A comparison of ways of personalising.

    ``objectives`` gives each objective its reward. ``prompts`` is a JSON file with a list ``prompts``, or a text file
    with one prompt per line; the packaged held-out prompts by default. ``count`` of them are answered. ``reference`` is
    the corner from which hypervolumes are measured, in the rewards' units, the same for all methods. ``baseline`` is
    the method that the others are compared with, by ``judge`` too, if there is one. ``base`` is a model from which the
    divergence of the answers is measured, in this process; without it none is.
    """

    kind: Literal["front"]
    name: Name
    objectives: dict[Name, GivenReward] = Field(min_length=2, max_length=MOST_OBJECTIVES)
    servers: dict[Name, GivenServer] = Field(min_length=1)
    methods: list[MethodPart] = Field(min_length=1)
    baseline: Name
    prompts: str | None = None
    count: int = Field(default=48, ge=2)
    grid: Grid = Grid()
    sampling: FrontSampling = FrontSampling()
    reference: dict[str, float] | None = None
    tolerance: float = Field(default=0.01, ge=0)
    judge: GivenJudge | None = None
    base: str | None = None
    output: str = ""

    @model_validator(mode="before")
    @classmethod
    def _name_rewards(cls, raw: Any) -> Any:
        """Name each reward after its objective; its weight is the grid's."""
        if isinstance(raw, dict) and isinstance(raw.get("objectives"), dict):
            named = {
                name: {**each, "name": name, "weight": 0.0} if isinstance(each, dict) else each
                for name, each in raw["objectives"].items()
            }
            return {**raw, "objectives": named}
        return raw

    @model_validator(mode="after")
    def _agree(self) -> "FrontRun":
        names = [method.name for method in self.methods]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"methods: two are called {twice[0]!r}; give one of them another name")
        if self.baseline not in names:
            raise ValueError(f"baseline: there is no method {self.baseline!r}; the methods are {', '.join(names)}")
        for at, method in enumerate(self.methods):
            if method.server not in self.servers:
                raise ValueError(f"methods.{at}.server: there is no server {method.server!r}")
            self._check_objectives(method.names, f"methods.{at}.names")
            self._check_objectives(method.sentences, f"methods.{at}.sentences")
        for at, point in enumerate(self.grid.points or ()):
            self._check_objectives(point, f"grid.points.{at}")
        if self.reference is None and any(each.scale == "raw" for each in self.objectives.values()):
            raise ValueError("reference: rewards that are raw have no common scale; give the corner of the hypervolume")
        if self.reference is not None:
            self._check_objectives(self.reference, "reference")
            if missing := [name for name in self.objectives if name not in self.reference]:
                raise ValueError(f"reference: {missing[0]} is missing")
        self.output = self.output or f"runs/{self.name}"
        return self

    def _check_objectives(self, given: Mapping[str, object], where: str) -> None:
        if unknown := [name for name in given if name not in self.objectives]:
            raise ValueError(f"{where}: {unknown[0]!r} is no objective; they are {', '.join(self.objectives)}")

    @property
    def corner(self) -> list[float]:
        """The reference point in the order of the objectives; by default two deviations below each reward's mean."""
        return [(self.reference or {}).get(name, -2.0) for name in self.objectives]
