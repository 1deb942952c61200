"""A method of steering: how the preferences of a request reach the policy. Each method has a file of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from tureen.errors import Unprocessable
from tureen.mixes import Normalize
from tureen.wire import ChatRequest, CompletionRequest
from tureen_core.soup import Semantics
from tureen_core.turns import Messages
from tureen_serve.inference.engine import Family

Request = ChatRequest | CompletionRequest
Weights = Mapping[str, float]


@dataclass(frozen=True)
class Variation:
    """One way in which a request's prompts are answered.

    Attributes:
        weights: the canonical preferences; empty if there are none.
        judges: the weights of the rewards that choose among its candidates.
        experts: the weights of the experts that write.
        told: what the prompt says, as the reply tells it: ``desired_rewards`` or ``sentences``; empty for a soup.
    """

    weights: Weights
    judges: Weights = field(default_factory=dict)
    experts: Weights = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """How one request's preferences reach one family.

    Attributes:
        normalize: how weights are normalised.
        semantics: how experts are souped.
        remedy: the advice for a negative weight.
        in_prompt: whether variations have different prompts.
        survives_cut: whether a prompt still says what is wanted when its beginning is cut off.
        settings: the method and its settings, for the reply.
    """

    @property
    def normalize(self) -> Normalize: ...

    @property
    def semantics(self) -> Semantics: ...

    @property
    def remedy(self) -> str: ...

    @property
    def in_prompt(self) -> bool: ...

    @property
    def survives_cut(self) -> bool: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    def steer(self, weights: Weights, param: str) -> Variation:
        """Make a variation of canonical weights.

        Raises:
            Unprocessable: they cannot be used; ``param`` is the field that they come from.
        """

    def ask_rewards(self, asked: Sequence[Weights], params: Sequence[str]) -> list[Variation]:
        """Make the variations that ask for normalised rewards. ``params`` are the fields that they come from.

        Raises:
            Unprocessable: the rewards cannot be asked for.
        """

    def compute_digest(self, variation: Variation) -> str:
        """Hash what a variation changes, to 12 hex digits."""

    def change_messages(self, messages: Messages, variation: Variation) -> Messages:
        """Write what a variation says into a conversation."""

    def change_text(self, text: str, variation: Variation, border: str) -> str:
        """Write what a variation says into a bare prompt.

        Args:
            border: the text between the user's message and the answer; empty if it is not known.

        Raises:
            Unprocessable: there is no place for it.
        """


def refuse_field(family: Family, how: str, param: str, remedy: str = "leave it out") -> NoReturn:
    """Refuse a field that means nothing to a family.

    Raises:
        Unprocessable: always.
    """
    raise Unprocessable(f"{family.name} is steered by {how}, so `{param}` means nothing to it; {remedy}", param=param)


def check_unbegun(text: str, border: str) -> None:
    """Refuse a bare prompt in which an answer has begun: what is wanted stands before the answer.

    Raises:
        Unprocessable: it has begun.
    """
    if border and border in text and not text.endswith(border):
        message = "this policy is steered by what stands before the answer, and the prompt goes on after its beginning"
        raise Unprocessable(f"{message}; end it where the answer begins, or send messages", param="prompt")
