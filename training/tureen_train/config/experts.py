"""The recipe of an expert policy."""

from typing import Literal

from pydantic import Field, model_validator

from tureen_train.config.parts import RecipePart, Run


class Preference(RecipePart):
    """DPO's settings, given to TRL: β, and the weight of a likelihood term on the chosen answer."""

    beta: float = Field(default=0.1, gt=0)
    sft: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=512, ge=16)


class ExpertRun(Run):
    """An expert policy: DPO (arXiv 2305.18290) toward one domain's or preference's answers."""

    kind: Literal["expert"]
    preference: Preference = Preference()
    family: str = "policy"
    objective: str = ""
    probes: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _fits_a_soup(self) -> "ExpertRun":
        self.objective = self.objective or self.name
        if self.model.lora is None:
            raise ValueError("model.lora: an expert is an adapter, so that it can be souped; give it a rank")
        if self.model.start is not None:
            raise ValueError("model.start: experts of one family all start from their base")
        if self.model.head != "random":
            raise ValueError("model.head: an expert has no score head")
        if self.model.quantise is not None:
            raise ValueError("model.quantise: an expert is trained on its base as it is; set it to null")
        return self
