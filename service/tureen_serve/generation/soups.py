"""Steering by a soup: the weights of the experts are those of the request. The prompt stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tureen.errors import Unprocessable
from tureen.mixes import Normalize
from tureen_core.preference import digest_soup
from tureen_core.soup import Semantics
from tureen_core.turns import Messages
from tureen_serve.generation.method import Request, Variation, Weights, refuse_field
from tureen_serve.inference.engine import Family

HOW = "a soup, not by rewards in its prompt"


@dataclass(frozen=True)
class SoupMethod:
    """The :class:`tureen_serve.generation.method.Method` of families of experts."""

    family: Family
    semantics: Semantics
    normalize: Normalize
    remedy: str = 'send `soup: {"normalize": "none"}` to subtract'
    in_prompt: bool = False
    survives_cut: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """The method and its settings, for the reply."""
        return {"method": "soup", "semantics": self.semantics, "normalize": self.normalize}

    def steer(self, weights: Weights, param: str) -> Variation:  # noqa: ARG002
        """Soup the experts with these weights."""
        return Variation(weights, experts=weights)

    def ask_rewards(self, asked: Sequence[Weights], params: Sequence[str]) -> list[Variation]:  # noqa: ARG002
        """Refuse: the weights of a model have no rewards to ask for."""
        refuse_field(self.family, HOW, "desired_rewards", "send `preferences`")

    def compute_digest(self, variation: Variation) -> str:
        """Hash the soup."""
        return digest_soup(variation.weights, self.semantics)

    def change_messages(self, messages: Messages, variation: Variation) -> Messages:  # noqa: ARG002
        """Return the messages."""
        return messages

    def change_text(self, text: str, variation: Variation, border: str) -> str:  # noqa: ARG002
        """Return the text."""
        return text


def make_soup_method(request: Request, family: Family) -> SoupMethod:
    """Read how a request soups a family's experts: as the family does, unless it says otherwise.

    Raises:
        Unprocessable: the semantics are not defined for these experts, or a field is of another method.
    """
    if request.mapping is not None:
        refuse_field(family, HOW, "mapping")
    given = request.soup.model_fields_set
    semantics = request.soup.semantics if "semantics" in given else family.semantics
    normalize = request.soup.normalize if "normalize" in given else family.normalize
    if semantics == "factor" and family.factor_obstacle:
        message = f"{family.name} cannot be souped by factors: {family.factor_obstacle}; send `delta`"
        raise Unprocessable(message, param="soup.semantics")
    return SoupMethod(family, semantics, normalize)
