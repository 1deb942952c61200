"""The texts that the engine scores: the answers of a prompt, finished texts, steps, and pairs of answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from tureen_core.chat_template import NO_INPUTS, TemplateInputs
from tureen_core.reading import Cut
from tureen_core.turns import Messages


@dataclass(frozen=True)
class Group:
    """The answers of one prompt. A finished conversation is a group with one answer and no prompt.

    Attributes:
        cut: how to cut an answer that is too long; None uses ``truncate`` of the call.
        beside: what the template is given beside the messages.
    """

    answers: Sequence[Messages]
    prompt: Messages = ()
    cut: Cut | None = None
    beside: TemplateInputs = NO_INPUTS

    def __len__(self) -> int:
        return len(self.answers)

    def param(self, index: int) -> str:
        """Return the field of an answer, relative to the group."""
        return f"candidates[{index}]" if self.prompt else "messages"


@dataclass(frozen=True)
class FinishedText:
    """A text that the caller has rendered, or its token ids. No template is applied to it.

    Attributes:
        specials: give a text the BOS and EOS tokens that the reading names, each once. Without it, and for ids, the
            tokens are read as they are.
        cut: how to cut a text that is too long; None uses ``truncate`` of the call.
    """

    text: str | Sequence[int]
    specials: bool = True
    cut: Cut | None = None

    def __len__(self) -> int:
        return 1

    def param(self, index: int) -> str:  # noqa: ARG002
        """Return ``""``: a text has no fields."""
        return ""


@dataclass(frozen=True)
class Steps:
    """The steps of one answer, after its prompt. Each step is scored."""

    prompt: Messages
    steps: Sequence[str]
    beside: TemplateInputs = NO_INPUTS

    def __len__(self) -> int:
        return len(self.steps)

    def param(self, index: int) -> str:
        """Return the field of a step, relative to the item."""
        return f"steps[{index}]"


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to compare, in this order. The score is the log-odds that the first is better.

    Attributes:
        places: indices of the two answers among the item's candidates.
    """

    prompt: Messages
    first: Messages
    second: Messages
    places: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return 1

    def param(self, index: int) -> str:  # noqa: ARG002
        """Return the field of the two answers, relative to the item."""
        return "candidates"


ScoreInput = Group | FinishedText | Steps | AnswerPair
