"""How a policy is steered, as its manifest says it: by a soup of experts, by reward tags, or by words. Data only.

A soup changes the weights. The other two change the prompt: tags state the rewards that an answer shall have
(Rewards-in-Context, arXiv 2402.10207), and sentences state what the person wants (RLPHF, arXiv 2310.11564).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, FiniteFloat, Tag, model_validator

from tureen_core.manifest_part import Part
from tureen_core.preference import NAME

Mapped = Literal["l2", "linf", "linear"]
Place = Literal["user", "system"]


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r}: use 1 to 64 of letters, digits, '_', '.', '-'")
    return name


Name = Annotated[str, AfterValidator(_check_name)]


class SoupSteering(Part):
    """Experts of one ``family`` form a soup."""

    method: Literal["soup"] = "soup"
    family: str
    semantics: Literal["delta", "factor"] = "delta"
    normalize: Literal["simplex", "none"] = "simplex"


class TaggedReward(Part):
    """One reward that a tag states, in standard deviations from the mean of the training's raw rewards.

    Attributes:
        name: of the objective.
        data: the SHA-256 of the records whose rewards the statistics are of.
        source: name and version of the reward model that read them.
        mean: of the raw rewards.
        deviation: the population's standard deviation of the raw rewards.
        low: the lowest normalised reward that may be asked for.
        high: the highest one.
    """

    name: Name
    data: str
    source: str = ""
    mean: FiniteFloat
    deviation: Annotated[FiniteFloat, Field(gt=0)]
    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _check_range(self) -> "TaggedReward":
        if not self.low < self.high:
            raise ValueError(f"the range of {self.name} is empty: low {self.low:g} is not below high {self.high:g}")
        return self

    def normalise(self, raw: float) -> float:
        """Scale a raw reward as the tags state it: (raw − mean) / deviation. It is not rounded."""
        return (raw - self.mean) / self.deviation


class TagSteering(Part):
    """Tags in the prompt state the rewards that an answer shall have. Each prompt has the tags of all rewards.

    Attributes:
        objectives: the rewards, in the order of their tags.
        mapping: how preferences become rewards by default, see :func:`tureen_core.reward_tags.map_preferences`.
        decimals: how many a tag's number has.
        tag: the text of one tag. ``{index}`` counts from 1, ``{name}`` is the objective's, and ``{score}`` its reward.
            If the tokenizer has added a part of it as one token (not as a control token), it is read as that token.
        place: the message at whose end the tags stand: the user's last one, or the system's.
    """

    method: Literal["reward-tags"] = "reward-tags"
    family: str
    objectives: Annotated[list[TaggedReward], Field(min_length=1)]
    mapping: Mapped = "l2"
    decimals: Annotated[int, Field(ge=0, le=6)] = 1
    tag: str = "<rm{index}_score> {score} "
    place: Place = "user"

    @model_validator(mode="after")
    def _check_tags(self) -> "TagSteering":
        _check_different(self.names, "objectives")
        if "{score}" not in self.tag:
            raise ValueError("tag: it needs {score}, which is where the reward stands")
        if len(self.objectives) > 1 and "{index}" not in self.tag and "{name}" not in self.tag:
            raise ValueError("tag: it needs {index} or {name}, or the tags of two rewards cannot be told apart")
        for each in self.objectives:
            if (round(each.low, self.decimals), round(each.high, self.decimals)) != (each.low, each.high):
                raise ValueError(
                    f"the range of {each.name} has more than {self.decimals} decimals: round low up and high down"
                )
        return self

    @property
    def names(self) -> list[str]:
        """The objectives' names, in the order of their tags."""
        return [each.name for each in self.objectives]


class Sentence(Part):
    """What is said for one objective."""

    objective: Name
    text: str

    @model_validator(mode="after")
    def _check_text(self) -> "Sentence":
        if not self.text.strip():
            raise ValueError(f"the sentence of {self.objective} is empty")
        return self


def _list_sentences(value: Any) -> Any:
    """Read sentences as a list, or as a map from objectives to texts."""
    if isinstance(value, dict):
        return [{"objective": name, "text": text} for name, text in value.items()]
    return value


class PromptSteering(Part):
    """Sentences in the prompt state what the person wants. Weights choose them, and order them, the largest first.

    Attributes:
        sentences: one for each objective; a map from objectives to texts is read too. Equal weights keep this order.
        threshold: a smaller weight names no sentence.
        template: what becomes of the message. ``{message}`` is its text, and ``{sentences}`` the chosen sentences.
        joiner: what stands between two sentences.
        place: the message that they stand in: the user's last one, or the system's, which is made if there is none.
    """

    method: Literal["prompt"] = "prompt"
    family: str
    sentences: Annotated[list[Sentence], BeforeValidator(_list_sentences), Field(min_length=1)]
    threshold: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.1
    template: str = "{message} {sentences}"
    joiner: str = " "
    place: Place = "user"

    @model_validator(mode="after")
    def _check_sentences(self) -> "PromptSteering":
        _check_different(self.names, "sentences")
        for part in ("{message}", "{sentences}"):
            if self.template.count(part) != 1:
                raise ValueError(f"template: it needs {part} once")
        return self

    @property
    def names(self) -> list[str]:
        """The objectives' names, in the order of the sentences."""
        return [each.objective for each in self.sentences]


def _check_different(names: Iterable[str], where: str) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{where}: {name} is given twice")


def _read_method(value: Any) -> Any:
    """Read the method; artifacts of the first versions have none, and are soups."""
    return value.get("method", "soup") if isinstance(value, dict) else getattr(value, "method", None)


InPromptSteering = TagSteering | PromptSteering
Steering = Annotated[
    Annotated[SoupSteering, Tag("soup")]
    | Annotated[TagSteering, Tag("reward-tags")]
    | Annotated[PromptSteering, Tag("prompt")],
    Discriminator(_read_method),
]
