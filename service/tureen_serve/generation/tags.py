"""Steering by reward tags: the prompt states the normalised rewards that its answer shall have."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tureen.mixes import Normalize
from tureen_core.reward_tags import check_desired_rewards, map_preferences, tag_messages, tag_text, write_tags
from tureen_core.soup import Semantics
from tureen_core.steering import Mapped, TagSteering
from tureen_core.turns import Messages
from tureen_serve.generation.method import Request, Variation, Weights, check_unbegun, refuse_field
from tureen_serve.inference.engine import Family

TOLD = "desired_rewards"


@dataclass(frozen=True)
class TagMethod:
    """The :class:`tureen_serve.generation.method.Method` of policies that were trained with rewards in context.

    Attributes:
        mapping: how preferences become rewards.
    """

    family: Family
    steering: TagSteering
    mapping: Mapped
    normalize: Normalize = "simplex"
    semantics: Semantics = "delta"
    remedy: str = "send `desired_rewards` to ask for little of it"
    in_prompt: bool = True

    @property
    def survives_cut(self) -> bool:
        """Whether the tags stand at the end of the prompt."""
        return self.steering.place == "user"

    @property
    def settings(self) -> dict[str, Any]:
        """The method and its settings, for the reply."""
        return {"method": self.steering.method, "mapping": self.mapping}

    def steer(self, weights: Weights, param: str) -> Variation:  # noqa: ARG002
        """Ask for the rewards that the weights are mapped to."""
        rewards = map_preferences(weights, self.steering.objectives, self.mapping, self.steering.decimals)
        return self._ask(weights, rewards)

    def ask_rewards(self, asked: Sequence[Weights], params: Sequence[str]) -> list[Variation]:
        """Ask for the rewards that the request names."""
        found = [check_desired_rewards(each, self.steering, param) for each, param in zip(asked, params, strict=True)]
        return [self._ask({}, each) for each in found]

    def compute_digest(self, variation: Variation) -> str:
        """Hash the tags."""
        return hashlib.sha256(write_tags(variation.told[TOLD], self.steering).encode()).hexdigest()[:12]

    def change_messages(self, messages: Messages, variation: Variation) -> Messages:
        """Write the tags into the message that the manifest says."""
        return tag_messages(messages, variation.told[TOLD], self.steering)

    def change_text(self, text: str, variation: Variation, border: str) -> str:
        """Write the tags at the end of the prompt, before the border of the answer."""
        check_unbegun(text, border)
        return tag_text(text, variation.told[TOLD], self.steering, border)

    def _ask(self, weights: Weights, rewards: Weights) -> Variation:
        return Variation(weights, experts=dict.fromkeys(self.family.experts, 1.0), told={TOLD: rewards})


def make_tag_method(request: Request, family: Family, steering: TagSteering) -> TagMethod:
    """Read how a request steers a policy by tags: its mapping is the manifest's, unless the request has another.

    Raises:
        Unprocessable: a field is of another method.
    """
    if request.soup.model_fields_set:
        refuse_field(family, "reward tags, not by a soup", "soup")
    return TagMethod(family, steering, request.mapping or steering.mapping)
