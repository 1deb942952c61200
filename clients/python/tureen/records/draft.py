"""A record as a form reads it, before it is labelled by a domain and its blank answers are removed."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tureen.records.schema import UNLABELLED, BadOption, BadRecord, Conversation, Record, is_blank


@dataclass(frozen=True)
class Draft:
    """A record as its form reads it: as :class:`Record`, but answers may be blank.

    ``names`` holds one name an answer where the form has them (DSP: the domains); ``padding`` counts the answers that
    the form itself marks as filling. ``columns`` says what was done with each column that is not one of the form's own;
    ``contradiction`` says how the scores contradict which answer the record prefers.
    """

    prompt: Conversation
    answers: tuple[Conversation, ...]
    scores: tuple[float, ...]
    names: tuple[str, ...] = ()
    padding: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    steps: tuple[tuple[float, ...], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    contradiction: str = ""
    form: str = ""

    def drop_names(self, names: Collection[str]) -> "Draft":
        """Leave out the answers with these names.

        Raises:
            BadOption: one of ``names`` is not there, or no names are.
        """
        for name in names:
            self._check(name)
        return self._only(index for index, name in enumerate(self.names) if name not in names)

    def prefer_name(self, name: str) -> "Draft":
        """Give the answer of ``name`` the score 1 and the others 0 (DSP, arXiv 2309.03126).

        Raises:
            BadOption: ``name`` is not there, or no names are.
            BadRecord: its answer is blank.
        """
        self._check(name)
        if _blank(self.answers[self.names.index(name)]):
            raise BadRecord("no answer", f"the answer of domain {name!r} is blank")
        return replace(self, scores=tuple(float(each == name) for each in self.names))

    def finish(self, source: str, prompts: bool = False) -> tuple[Record, dict[str, int]]:
        """Make the record without blank answers. Also returns the number of answers left out, by reason.

        Args:
            source: where the record stands, as ``file:7``.
            prompts: whether the record is read for its prompt. It then needs one, and no answer.

        Raises:
            BadRecord: no answer is left, there is no prompt where one is needed, or as :class:`Record`.
        """
        filled = self._only(index for index, answer in enumerate(self.answers) if not _blank(answer))
        if prompts:
            self._check_prompt()
        if not filled.answers and not prompts:
            raise BadRecord("no answer", "every answer is blank or padding")
        meta = {**self.meta, "names": list(filled.names)} if self.names else self.meta
        record = Record(
            self.prompt,
            filled.answers,
            filled.scores,
            source,
            meta,
            filled.attributes,
            filled.steps,
            self.tools,
            self.chat_template_kwargs,
        )
        return record, {"blank": len(self.answers) - len(filled.answers), "padding": self.padding}

    def _check_prompt(self) -> None:
        if not self.prompt:
            raise BadRecord("no prompt", "the answers continue no common prompt")
        if self.prompt[-1]["role"] not in ("user", "tool"):
            raise BadRecord("no prompt", "there is no turn of the user to be answered")

    def _only(self, kept: Iterable[int]) -> "Draft":
        chosen = list(kept)
        return replace(
            self,
            answers=tuple(self.answers[index] for index in chosen),
            scores=tuple(self.scores[index] for index in chosen),
            names=tuple(self.names[index] for index in chosen) if self.names else (),
            attributes={name: tuple(values[index] for index in chosen) for name, values in self.attributes.items()},
            steps=tuple(self.steps[index] for index in chosen) if self.steps else (),
        )

    def _check(self, name: str) -> None:
        if not self.names:
            raise BadOption(f"no domain {name!r}: only records of the form 'dsp' have domains")
        if name not in self.names:
            raise BadOption(f"unknown domain {name!r}; known: {', '.join(self.names)}")


def make_answers(*texts: str) -> tuple[Conversation, ...]:
    """Make answers of one message each."""
    return tuple(({"role": "assistant", "content": text},) for text in texts)


def make_unlabelled_scores(count: int) -> tuple[float, ...]:
    """Make the scores of answers without labels."""
    return (UNLABELLED,) * count


def _blank(answer: Conversation) -> bool:
    return bool(answer) and is_blank(answer[-1])
