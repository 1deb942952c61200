"""The contract of a form: how a layout of files is recognised, and what is read from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tureen_core.artifact_tensors import HEAD
from tureen_core.head_rule import HeadRule
from tureen_core.heads import GatedHead, Pooling
from tureen_core.manifest import Input
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.options import PlainOptions
from tureen_core.reading import StepLayout
from tureen_core.stored_head import StoredHead

TOLD = ("tokens", "step_mark")  # options that only some forms take
Reference = Callable[[Sequence[int]], list[float]]
Convert = Callable[[], Path]


@dataclass(frozen=True)
class FormReading:
    """What a form reads from a checkpoint.

    Attributes:
        labels: names of the rewards, in the order of the head's columns; () if the files name none.
        open_reference: loads the model by plain transformers in float32, and returns a function that scores the ids of
            one text: its rewards by column, without any code of the serving path.
        rule: how rewards are computed from hidden states.
        head: the head; None where ``rule.kind`` is ``model``.
        gate: weighs the head's rewards; then one more objective has the overall reward.
        columns: the column of each label; by default 0, 1, 2 ...
        input: what the model reads.
        pooling: which token the head reads.
        bos: whether a BOS is put first where the template writes none, or dropped where it writes one.
        eos: whether an EOS is put last where the template writes none.
        framed: whether the tokenizer puts its own special tokens around a text, as it does for encoders.
        positions: the largest number of tokens, where ``max_position_embeddings`` does not tell.
        template: a chat template, where the tokenizer has none; None if the form has none either.
        own_template: whether ``template`` also stands in for the tokenizer's: the form's texts are not made by a chat
            template.
        prepared: whether the form has given the tokenizer its template already.
        step_mark: the mark of a step of a process reward model.
        step_layout: where the marks stand, see :class:`tureen_core.reading.Reading`.
        step_break: the text between a mark and the next step.
        skipped_token: the id of padding, at which the library does not read a reward; None if it reads at any token.
        extra_keys: prefixes of tensors that do not belong to the backbone.
        convert: writes the backbone's files as transformers reads them, once, and returns their folder; None if the
            checkpoint has them.
        base: the folder of an adapter's base; None for a whole model.
    """

    labels: tuple[str, ...]
    open_reference: Callable[[], Reference]
    rule: HeadRule = HeadRule()
    head: StoredHead | None = None
    gate: GatedHead | None = None
    columns: tuple[int, ...] = ()
    input: Input = "conversation"
    pooling: Pooling = "eos"
    bos: Literal["add", "none", "drop"] = "none"
    eos: Literal["append", "none"] = "none"
    framed: bool = False
    positions: int | None = None
    template: str | None = None
    own_template: bool = False
    prepared: bool = False
    skipped_token: int | None = None
    step_mark: str = ""
    step_layout: StepLayout = "turns"
    step_break: str = ""
    extra_keys: tuple[str, ...] = (f"{HEAD}.",)
    convert: Convert | None = None
    base: Path | None = None


@dataclass(frozen=True)
class Form:
    """A layout of a reward model's files.

    Attributes:
        name: what ``--form`` takes.
        description: how it is recognised, for the table of the README and for errors.
        fits: whether a checkpoint has this form.
        read: reads it; given the tokenizer, since tokens and labels may be told by their texts.
        answers: of :data:`TOLD`, the options that it takes.
    """

    name: str
    description: str
    fits: Callable[[Checkpoint], bool]
    read: Callable[[Checkpoint, PlainOptions, Any], FormReading] = field(repr=False)
    answers: tuple[str, ...] = ()
