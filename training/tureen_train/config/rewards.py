"""The recipe of a reward model. Its ``loss`` chooses the method."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tureen_core.reading import Reading
from tureen_train.config.attributes import AttributesLoss
from tureen_train.config.gate import GateLoss
from tureen_train.config.odin import OdinLoss
from tureen_train.config.pairs import PairLoss
from tureen_train.config.parts import Run, make_tag
from tureen_train.config.ranking import RankingLoss
from tureen_train.config.steps import StepsLoss

RewardLoss = Annotated[
    Annotated[RankingLoss, Tag("ranking")]
    | Annotated[AttributesLoss, Tag("attributes")]
    | Annotated[OdinLoss, Tag("odin")]
    | Annotated[GateLoss, Tag("gate")]
    | Annotated[PairLoss, Tag("pair")]
    | Annotated[StepsLoss, Tag("steps")],
    Discriminator(make_tag("ranking")),
]


class RewardRun(Run):
    """A reward model: a backbone with a score head, trained by ``loss.method``."""

    kind: Literal["reward"]
    reading: Reading = Reading(max_length=512)
    loss: RewardLoss = RankingLoss()
    objective: str = ""
    probes: int = Field(default=8, ge=1, le=64)

    @model_validator(mode="after")
    def _probing_reads_whole_weights(self) -> "RewardRun":
        if self.model.head == "probe" and self.scale.zero == 3:
            raise ValueError(
                "model.head: probe needs whole weights on each rank; use scale.zero up to 2, or head: random"
            )
        if self.model.head == "probe" and self.loss.method != "ranking":
            raise ValueError("model.head: probe is for loss.method: ranking; use it, or head: random")
        return self

    @model_validator(mode="after")
    def _tokens_are_of_a_loss(self) -> "RewardRun":
        if self.model.head == "tokens" and not isinstance(self.loss, PairLoss | StepsLoss):
            raise ValueError("model.head: tokens is for loss.method: pair or steps; use random or probe")
        return self

    @model_validator(mode="after")
    def _ends_are_read(self) -> "RewardRun":
        """Pairs and steps are read at the last token of a text, and no token is appended."""
        if self.loss.input == "conversation":
            return self
        if self.reading.pooling not in ("eos", "last") or self.reading.truncation != "left":
            raise ValueError(
                f"reading: loss.method: {self.loss.method} needs pooling: last or eos, and truncation: left"
            )
        if "eos" not in self.reading.model_fields_set:
            self.reading = self.reading.model_copy(update={"eos": "none"})
        if self.reading.eos == "append":
            raise ValueError(f"reading.eos: loss.method: {self.loss.method} reads inside of a text; use none")
        return self

    @model_validator(mode="after")
    def _marks_are_read(self) -> "RewardRun":
        marked = isinstance(self.loss, StepsLoss) and self.loss.context == "marks"
        mark = self.loss.tokens[0] if marked and isinstance(self.loss, StepsLoss) else ""
        if self.reading.step_mark not in ("", mark):
            raise ValueError(f"reading.step_mark: loss.context and loss.tokens make it {mark!r}; leave the key out")
        if mark:
            self.reading = self.reading.model_copy(update={"step_mark": mark})
        return self

    @model_validator(mode="after")
    def _default_objective(self) -> "RewardRun":
        self.objective = self.objective or self.name
        return self
