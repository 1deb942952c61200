"""The methods by which a policy can be trained: the key ``policy`` of an expert's recipe."""

from typing import Annotated

from pydantic import Discriminator, Tag

from tureen_train.config.parts import make_tag
from tureen_train.config.policies import (
    DpoPolicy,
    GrpoPolicy,
    IterativeDpoPolicy,
    PpoPolicy,
    RejectionPolicy,
    RlooPolicy,
    SftPolicy,
)
from tureen_train.config.reward_tags import RicPolicy

PolicySettings = Annotated[
    Annotated[DpoPolicy, Tag("dpo")]
    | Annotated[SftPolicy, Tag("sft")]
    | Annotated[RejectionPolicy, Tag("rejection")]
    | Annotated[IterativeDpoPolicy, Tag("iterative-dpo")]
    | Annotated[GrpoPolicy, Tag("grpo")]
    | Annotated[RlooPolicy, Tag("rloo")]
    | Annotated[PpoPolicy, Tag("ppo")]
    | Annotated[RicPolicy, Tag("ric")],
    Discriminator(make_tag("dpo")),
]
