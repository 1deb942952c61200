"""How an artifact's texts are read: the reading in its manifest, a text's ids, and how a long text is cut."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tureen_core.heads import Pooling

ControlMarkRule = Literal["text", "as-is"]
StepLayout = Literal["turns", "text", "parts"]


class Reading(BaseModel):
    """How an artifact's text becomes ids and where its reward is read. Part of its fingerprint.

    Attributes:
        pooling: which hidden states the head reads.
        template: the digest that :class:`tureen_core.template.Renderer` gives.
        bos: ``add`` puts the BOS id first unless it stands there already; ``drop`` removes one that stands there.
        eos: ``append`` ends with the EOS id, replacing white space that a template writes after it.
        truncation: from the left drops BOS and keeps EOS, as DSP does; from the right it puts EOS in the place of the
            last token kept.
        max_length: the largest number of ids.
        dtype: what training computed in.
        control_marks: how marks such as ``<|im_end|>`` inside a message are read: as plain ``text``, or ``as-is``, as
            control tokens.
        step_mark: the mark of a step; without one, each step follows the one before it after a blank line.
        step_layout: where marks stand, see :mod:`tureen_core.step_texts`. With ``turns`` the steps are a user's turns,
            and the mark is the assistant's turn after each earlier step. With ``text`` the mark follows each step
            in the answer's text, and the reward is read at it. With ``parts`` it does so too, and steps and marks are
            tokenised each on its own.
        step_break: with ``text``, what stands between a mark and the next step.
        frame: the special tokens that the tokenizer itself puts around one ``text``, or around and between the two
            texts of a ``pair``, each of which is tokenised by itself. Then ``bos`` and ``eos`` are ``none``, and a text
            that is cut keeps all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pooling: Pooling = "eos"
    template: str = ""
    bos: Literal["add", "none", "drop"] = "add"
    eos: Literal["append", "none"] = "append"
    truncation: Literal["left", "right"] = "left"
    max_length: int = Field(default=1024, ge=8)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    control_marks: Annotated[ControlMarkRule, Field(exclude_if=lambda rule: rule == "text")] = "text"
    step_mark: Annotated[str, Field(exclude_if=lambda mark: mark == "")] = ""
    step_layout: Annotated[StepLayout, Field(exclude_if=lambda layout: layout == "turns")] = "turns"
    step_break: Annotated[str, Field(exclude_if=lambda text: text == "")] = ""
    frame: Annotated[Literal["none", "text", "pair"], Field(exclude_if=lambda frame: frame == "none")] = "none"


@dataclass(frozen=True)
class Rendered:
    """Token ids of one text: ``ids[:shared]`` are its prompt's, the same for every candidate of that prompt.

    ``normalised`` names what was not read as it was sent: ``end_marks`` that were removed, ``control_marks`` that were
    read as plain text, and fields that the template does not read.
    """

    ids: list[int]
    shared: int = 0
    truncated: bool = False
    normalised: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cut:
    """How a text that is too long is cut: to ``length`` tokens, from a side; the reading's own where it is None."""

    length: int | None = None
    side: Literal["left", "right"] | None = None
