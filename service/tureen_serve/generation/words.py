"""Steering by words: the prompt says what the person wants, in the sentences that the weights choose and order."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tureen.mixes import Normalize
from tureen_core.prompt_steering import choose_sentences, say_in_messages, say_in_text
from tureen_core.soup import Semantics
from tureen_core.steering import PromptSteering
from tureen_core.turns import Messages
from tureen_serve.generation.method import Request, Variation, Weights, check_unbegun, refuse_field
from tureen_serve.inference.engine import Family

HOW = "sentences in its prompt, not by a soup or by rewards"
TOLD = "sentences"


@dataclass(frozen=True)
class PromptMethod:
    """The :class:`tureen_serve.generation.method.Method` of policies and bases that are told what is wanted."""

    family: Family
    steering: PromptSteering
    normalize: Normalize = "simplex"
    semantics: Semantics = "delta"
    remedy: str = "a sentence is said or not; leave the objective out"
    in_prompt: bool = True

    @property
    def survives_cut(self) -> bool:
        """Whether the sentences stand at the end of the prompt."""
        template = self.steering.template
        return self.steering.place == "user" and template.index("{message}") < template.index("{sentences}")

    @property
    def settings(self) -> dict[str, Any]:
        """The method and its settings, for the reply."""
        return {"method": self.steering.method, "threshold": self.steering.threshold}

    def steer(self, weights: Weights, param: str) -> Variation:
        """Choose the sentences of these weights; none without weights."""
        sentences = choose_sentences(weights, self.steering, param) if weights else []
        return Variation(weights, experts=dict.fromkeys(self.family.experts, 1.0), told={TOLD: sentences})

    def ask_rewards(self, asked: Sequence[Weights], params: Sequence[str]) -> list[Variation]:  # noqa: ARG002
        """Refuse: sentences state no rewards."""
        refuse_field(self.family, HOW, "desired_rewards", "send `preferences`")

    def compute_digest(self, variation: Variation) -> str:
        """Hash the sentences."""
        return hashlib.sha256(json.dumps(variation.told[TOLD]).encode()).hexdigest()[:12]

    def change_messages(self, messages: Messages, variation: Variation) -> Messages:
        """Write the sentences into the message that the manifest says."""
        return say_in_messages(messages, variation.told[TOLD], self.steering)

    def change_text(self, text: str, variation: Variation, border: str) -> str:
        """Write the sentences into the prompt, before the border of the answer."""
        if not variation.told[TOLD]:
            return text
        check_unbegun(text, border)
        return say_in_text(text, variation.told[TOLD], self.steering, border)


def make_prompt_method(request: Request, family: Family, steering: PromptSteering) -> PromptMethod:
    """Make the method of a family that is steered by words.

    Raises:
        Unprocessable: a field is of another method.
    """
    if request.soup.model_fields_set:
        refuse_field(family, HOW, "soup")
    if request.mapping is not None:
        refuse_field(family, HOW, "mapping")
    return PromptMethod(family, steering)
