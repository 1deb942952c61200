"""The recipe of an expert policy."""

from typing import Literal

from pydantic import Field, model_validator

from tureen_train.config.parts import RecipePart, Run


class Preference(RecipePart):
    """Settings of TRL's DPO: β, and ``sft``, the weight of a likelihood term on the chosen answer."""

    beta: float = Field(default=0.1, gt=0)
    sft: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=512, ge=16)


class ExpertRun(Run):
    """An expert policy, trained by DPO (arXiv 2305.18290) toward the answers of one domain or objective."""

    kind: Literal["expert"]
    preference: Preference = Preference()
    family: str = "policy"
    objective: str = ""
    probes: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _fits_a_soup(self) -> "ExpertRun":
        self.objective = self.objective or self.name
        if self.model.lora is None:
            raise ValueError(
                "model.lora: an expert must be a LoRA adapter, so that it can be souped; set model.lora.rank"
            )
        if self.model.start is not None:
            raise ValueError("model.start: all experts of a family start from the base; leave the key out")
        if self.model.head != "random":
            raise ValueError("model.head: an expert has no score head; leave the key out")
        if self.model.quantise is not None:
            raise ValueError("model.quantise: an expert is trained on the unquantised base; set it to null")
        return self
