"""What a user says about a plain model: names, and answers to what its files do not tell."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tureen_core.head_rule import Output
from tureen_core.preference import NAME

ObjectiveName = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]


class PlainError(ValueError):
    """A folder cannot be served as it is. The message names the file or the flag, and says what to do."""


class PlainOptions(BaseModel):
    """Options for one plain model. All may be left out, unless its files do not tell.

    Attributes:
        form: the name of a form, see :data:`tureen_core.plain.forms.FORMS`; by default the first one that fits.
        objectives: names of the rewards; by default the labels of the configuration.
        template: a file of a chat template (Jinja), or a name as ``chatml``, see :mod:`tureen_core.plain.templates`.
        tokenizer: a folder with the tokenizer; by default the model's own folder.
        adapter_base: the base of a reward adapter: a folder, a packaged base or a name of the hub; by default the one
            that the adapter names.
        output: how a reward is computed from a logit; by default as ``problem_type`` says.
        pooling: where a head on one token reads: ``eos`` is the last token, ``last`` the token before EOS. It is asked
            for where padding and EOS are one token, since libraries then differ.
        max_length: the largest number of tokens of a text; by default as the configuration says.
        tokens: the tokens that a judge would write: for a pair, of the first and of the second answer; of others, the
            worse one first.
        step_mark: the text after each step, where a process reward model reads; or the assistant's turn after a step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: str | None = None
    objectives: tuple[ObjectiveName, ...] = ()
    template: str | None = None
    tokenizer: str | None = None
    adapter_base: str | None = None
    output: Output | None = None
    pooling: Literal["eos", "last"] | None = None
    max_length: Annotated[int, Field(ge=8)] | None = None
    tokens: tuple[str, ...] = ()
    step_mark: str | None = None


def count_nouns(number: int, noun: str) -> str:
    """Write a number with its noun, as ``1 label`` and ``2 labels``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


NO_OPTIONS = PlainOptions()
