"""One preference record, whatever form it came in: a context, N answers and N scores.

The errors, as a tree:

    DataError(ValueError)
    ├── BadRecord    one record cannot be used: counted and skipped, or fatal under ``strict``
    ├── BadFile      a file or folder cannot be read at all: always fatal
    │   └── EmptyFile    a file holds nothing
    └── BadOption    an option does not fit the data: always fatal
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

from tureen.answer_steps import split_steps
from tureen.messages import Role

Message = dict[str, Any]
Conversation = tuple[Message, ...]

ROLES: tuple[str, ...] = get_args(Role)
MESSAGE_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content"}
UNLABELLED = math.nan


class DataError(ValueError):
    """The base class of errors in preference data."""


class BadFile(DataError):
    """A file or folder is missing, damaged, or in no container that is read here."""


class EmptyFile(BadFile):
    """A file is empty, or blank."""


class BadOption(DataError):
    """A form, domain or split that the data do not have."""


class BadRecord(DataError):
    """One record cannot be used.

    Args:
        reason: a few fixed words, by which a report counts.
        detail: which field, what it holds, and what it should hold.
        source: where the record stands, as ``file:7``, the line or the item.
        column: the column for whose sake the record is refused, where that is the reason.
    """

    def __init__(self, reason: str, detail: str, source: str = "", column: str = "") -> None:
        super().__init__(f"{source}: {reason}: {detail}" if source else f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.source = source
        self.column = column

    def at(self, source: str) -> "BadRecord":
        """Return the same error with its place."""
        return BadRecord(self.reason, self.detail, source, self.column)


@dataclass(frozen=True)
class Record:
    """A context, its answers, and how good each is.

    Args:
        prompt: the turns that all answers continue; empty where the dialogues already differ earlier.
        answers: N >= 1 continuations, each ending with an assistant turn that is not blank; none where only the prompt
            was read.
        scores: N numbers. Larger is better, equal is a tie; NaN is unlabelled and takes part in no comparison.
        source: where it was read, as ``file:7``, the line or the item; not part of equality.
        meta: the other columns of the source. ``names``, where present, holds one name an answer (DSP: its domain).
        attributes: name → N numbers, where answers are rated by several; NaN is unlabelled.
        steps: for each answer a label of each of its steps, from 0 (wrong) to 1 (right), NaN if unlabelled; empty
            without step labels. Blank lines divide an answer's last message into steps, see :func:`read_steps`.
        tools: the tools that the chat template writes, each as ``{"type": "function", "function": {...}}``.
        chat_template_kwargs: further arguments of the chat template.

    Raises:
        BadRecord: lengths differ, a score is infinite, a role is unknown, a text is not Unicode, or there is neither a
            prompt nor an answer.
    """

    prompt: Conversation
    answers: tuple[Conversation, ...]
    scores: tuple[float, ...]
    source: str = field(default="", compare=False)
    meta: dict[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    steps: tuple[tuple[float, ...], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.answers and not self.prompt:
            raise BadRecord("no answer", "a record needs a prompt, or at least one answer")
        if len(self.answers) != len(self.scores):
            raise BadRecord("lengths differ", f"{len(self.answers)} answers and {len(self.scores)} scores")
        if any(math.isinf(score) for score in self.scores):
            raise BadRecord("bad score", f"scores must be finite, are {list(self.scores)}")
        for index, message in enumerate(self.prompt):
            _check_message(message, f"prompt[{index}]", first=index == 0)
        for index, answer in enumerate(self.answers):
            _check_answer(answer, f"answers[{index}]", opens=not self.prompt)
        for name, values in self.attributes.items():
            if len(values) != len(self.answers):
                raise BadRecord("lengths differ", f"{len(self.answers)} answers and {len(values)} values of {name!r}")
            if any(math.isinf(value) for value in values):
                raise BadRecord("bad score", f"attribute {name!r} must be finite, is {list(values)}")
        self._check_steps()
        object.__setattr__(self, "scores", _one_nan(self.scores))
        object.__setattr__(self, "attributes", {name: _one_nan(values) for name, values in self.attributes.items()})
        object.__setattr__(self, "steps", tuple(_one_nan(labels) for labels in self.steps))

    def _check_steps(self) -> None:
        if self.steps and len(self.steps) != len(self.answers):
            raise BadRecord("lengths differ", f"{len(self.answers)} answers and {len(self.steps)} lists of step labels")
        for index, labels in enumerate(self.steps):
            found = len(read_steps(self.answers[index]))
            if len(labels) != found:
                raise BadRecord("lengths differ", f"answers[{index}] has {found} steps and {len(labels)} labels")
            if any(not math.isnan(label) and not 0 <= label <= 1 for label in labels):
                raise BadRecord("bad score", f"step labels must be 0 to 1, are {list(labels)}")

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """The prompt with each answer: N whole conversations."""
        return tuple((*self.prompt, *answer) for answer in self.answers)

    @property
    def template_arguments(self) -> dict[str, Any]:
        """The arguments of the chat template by their field on the wire. Empty ones are left out."""
        given = {"tools": list(self.tools), "chat_template_kwargs": dict(self.chat_template_kwargs)}
        return {name: value for name, value in given.items() if value}

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The comparable pairs as (index of the better, index of the worse); ties and unlabelled answers make none."""
        numbered = list(enumerate(self.scores))
        return [(i, j) for i, better in numbered for j, worse in numbered if better > worse]

    @cached_property
    def prompt_key(self) -> str:
        """A hash of the turns that all answers share, in 16 hex digits. White space does not count."""
        shared = self.prompt or _shared_turns(self.conversations) or self.answers[0]
        text = "\n".join(map(_key, shared))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _key(turn: Message) -> str:
    extra = {name: value for name, value in turn.items() if name not in ("role", "content")}
    told = f" {json.dumps(extra, sort_keys=True)}" if extra else ""
    return f"{turn['role']}: {' '.join((turn['content'] or '').split())}{told}"


def read_steps(answer: Conversation) -> list[str]:
    """Split an answer's last message into its steps, at blank lines."""
    return split_steps(answer[-1]["content"] or "")


def _one_nan(values: Sequence[float]) -> tuple[float, ...]:
    """Convert numbers to floats with one NaN object, so that tuples compare equal, and no negative zero."""
    return tuple(UNLABELLED if math.isnan(value) else float(value) + 0.0 for value in values)


def _shared_turns(conversations: Sequence[Conversation]) -> Conversation:
    shared = []
    for turns in zip(*(conversation[:-1] for conversation in conversations), strict=False):
        if any(turn != turns[0] for turn in turns):
            break
        shared.append(turns[0])
    return tuple(shared)


def _check_answer(answer: Conversation, where: str, opens: bool) -> None:
    if not answer or answer[-1].get("role") != "assistant":
        raise BadRecord("no answer", f"{where} must end with an assistant turn")
    for index, message in enumerate(answer):
        _check_message(message, f"{where}[{index}]", first=opens and index == 0)
    if is_blank(answer[-1]):
        raise BadRecord("no answer", f"{where} is blank")


def is_blank(message: Message) -> bool:
    """Whether a message has neither text nor a call."""
    return not (message["content"] or "").strip() and not message.get("tool_calls")


def _check_message(message: Message, where: str, first: bool) -> None:
    if not {"role", "content"} <= message.keys() <= MESSAGE_KEYS:
        raise BadRecord("bad message", f"{where} must have role and content, has {sorted(message)}")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise BadRecord("bad message", f"{where}.role is {role!r}; use {', '.join(ROLES)}")
    if role == "system" and not first:
        raise BadRecord("bad message", f"{where}: a system turn stands first or not at all")
    if content is None and (message.get("tool_calls") or message.get("reasoning_content")):
        return
    if not isinstance(content, str):
        raise BadRecord("wrong type", f"{where}.content must be a string, is {type(content).__name__}")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        detail = f"{where}.content holds a lone surrogate at character {error.start}"
        raise BadRecord("not Unicode", detail) from None
