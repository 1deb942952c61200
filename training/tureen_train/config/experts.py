"""The recipe of an expert policy."""

from typing import Literal

from pydantic import Field, model_validator

from tureen_train.config.parts import Optimisation, Run
from tureen_train.config.policies import DpoPolicy, PpoPolicy
from tureen_train.config.policy_methods import PolicySettings
from tureen_train.config.preferences import PromptPreferences
from tureen_train.config.reward_tags import RicPolicy
from tureen_train.config.rollouts import JudgeSource, RewardSource, Sampling, check_common_units


class ExpertRun(Run):
    """A policy, trained by ``policy.method`` toward one domain or objective.

    A LoRA becomes an expert that can be souped, or a policy that is steered by its prompt; whole weights
    (``model.lora: null``) become a checkpoint, which can be the base of others. A LoRA may start from an adapter:
    ``model.start`` is an artifact or a PEFT folder.

    ``rewards`` and ``sampling`` are for the methods that learn from the policy's own answers; their prompts are those
    of ``data``. A batch of which ``failed_share`` or more has no reward ends the run; 1 ends it when all fail.
    ``preferences`` adds sentences to the prompts of ``data`` that state what a reader prefers.
    """

    kind: Literal["expert"]
    policy: PolicySettings = DpoPolicy()
    rewards: list[RewardSource] = []
    preferences: PromptPreferences = PromptPreferences()
    failed_share: float = Field(default=1.0, gt=0, le=1)
    sampling: Sampling = Sampling()
    family: str = "policy"
    objective: str = ""
    probes: int = Field(default=4, ge=1, le=64)

    @model_validator(mode="after")
    def _has_no_head(self) -> "ExpertRun":
        self.objective = self.objective or self.name
        if self.model.start is not None and self.model.lora is None:
            raise ValueError(
                "model.start: it names an adapter, and model.lora: null trains whole weights; name a checkpoint in "
                "model.base instead (tureen-train merge makes one of an adapter)"
            )
        if isinstance(self.policy, RicPolicy) and not self.policy.offline and self.model.start is None:
            raise ValueError("policy.offline: false needs model.start, a policy that has learnt from the data already")
        if self.model.head != "auto":
            raise ValueError("model.head: an expert has no score head; leave the key out")
        if self.model.quantise is not None:
            raise ValueError("model.quantise: an expert is trained on the unquantised base; set it to null")
        return self

    @model_validator(mode="after")
    def _suits_ppo(self) -> "ExpertRun":
        if not isinstance(self.policy, PpoPolicy):
            return self
        if self.model.lora is not None and self.model.lora.dropout:
            raise ValueError("model.lora.dropout: PPO compares likelihoods, which dropout would change; set it to 0")
        given, default = self.optimisation.model_dump(), Optimisation().model_dump()
        for key, own in {"max_steps": "steps", "epochs": "epochs", "accumulation": "minibatches"}.items():
            if given[key] != default[key]:
                raise ValueError(f"optimisation.{key}: PPO has policy.{own} instead; leave the key out")
        if self.sampling.engine == "vllm":
            raise ValueError("sampling.engine: PPO does not pass its weights on to vLLM; set it to process")
        return self

    @model_validator(mode="after")
    def _rewards_are_read(self) -> "ExpertRun":
        if self.policy.samples and not self.rewards:
            raise ValueError(f"rewards: policy.method: {self.policy.method} needs at least one source of rewards")
        if self.rewards and not self.policy.samples:
            raise ValueError(f"rewards: policy.method: {self.policy.method} reads none; leave the key out")
        if self.sampling.count < 2 and any(isinstance(each, JudgeSource) for each in self.rewards):
            raise ValueError("sampling.count: a judge compares the answers to a prompt; set it to 2 or more")
        if self.policy.samples and self.sampling.engine == "server" and not self.policy.one_round:
            raise ValueError(
                "sampling.engine: the weights of a server do not change, so it can only write the answers of "
                "policy.method: rejection or iterative-dpo with rounds: 1"
            )
        names = [each.name for each in self.rewards if each.name]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"rewards: two are called {twice[0]!r}; give one of them another name")
        summed = [each for each in self.rewards if each.weight]
        if self.rewards and not summed:
            raise ValueError("rewards: all weights are 0; give one reward a weight")
        if self.policy.sums_rewards:
            check_common_units({each.name or f"the reward of {place}": each.unit for place, each in enumerate(summed)})
        return self

    @model_validator(mode="after")
    def _suits_ric(self) -> "ExpertRun":
        if not isinstance(self.policy, RicPolicy):
            return self
        for each in self.rewards:
            if isinstance(each, JudgeSource):
                raise ValueError("rewards: RiC needs the reward of each answer, and a judge compares answers")
            if each.scale != "raw":
                raise ValueError("rewards: RiC normalises raw rewards by those of its own data; set scale: raw")
            if each.weight != 1:
                raise ValueError("rewards: RiC has a tag for each reward and sums none; leave weight out")
            if "{name}" in self.policy.tag and self.policy.tokens == "special" and not each.name:
                raise ValueError("rewards: name each reward, since policy.tag has {name}")
        if self.policy.tokens == "special" and self.model.lora is not None:
            raise ValueError(
                "policy.tokens: a LoRA has no embeddings of new tokens; set model.lora: null, or tokens: text"
            )
        return self

    @property
    def new_tokens(self) -> list[str]:
        """The texts that are one token each, which the base's tokenizer does not have."""
        return self.policy.list_new_tokens([each.name for each in self.rewards])
