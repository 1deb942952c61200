"""Two answers to a prompt, and what a judge says of them. Pure."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tureen.messages import join_content
from tureen.records.schema import Conversation, Record

Done = Callable[[int], object]

TOO_LONG = "too long for the model"


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt, in the order in which the judge reads them."""

    prompt: Conversation
    first: str
    second: str

    @property
    def turned(self) -> "Comparison":
        """The same answers in the other order."""
        return Comparison(self.prompt, self.second, self.first)


@dataclass(frozen=True)
class Judgement:
    """What a comparison of two answers gives.

    Attributes:
        share: the first answer's share of the win, from 0 to 1, or the probability that it is better; None if the
            comparison failed.
        error: why it failed.
        truncated: whether a text was cut.
    """

    share: float | None
    error: str = ""
    truncated: bool = False


class Judge(Protocol):
    """Compares the two answers of records.

    Attributes:
        name: what the files and reports call it.
        reads_tools: whether it reads the tools and template arguments of a record.
    """

    @property
    def name(self) -> str:
        """As above."""

    @property
    def reads_tools(self) -> bool:
        """As above."""

    def judge_pairs(self, records: Sequence[Record], done: Done) -> list[Judgement]:
        """Judge records of two answers each, one judgement for each.

        Args:
            done: called with the number of further records that are judged.
        """


def make_comparison(record: Record) -> Comparison:
    """Make a comparison of a record's two answers, as a judge reads them that reads texts."""
    return Comparison(record.prompt, *map(write_answer, record.answers))


def write_answer(answer: Conversation) -> str:
    """Write a single turn as its text, and more turns with their roles."""
    return join_content(answer[0]) if len(answer) == 1 else _write_turns(answer)


def write_request(prompt: Conversation) -> str:
    """Write a single user turn as its text, and a longer conversation with its roles."""
    return join_content(prompt[0]) if len(prompt) == 1 else _write_turns(prompt)


def _write_turns(turns: Conversation) -> str:
    return "\n\n".join(f"[{turn['role']}]\n{join_content(turn)}" for turn in turns)


def draw_order(comparison: Comparison) -> Comparison:
    """Draw the order in which a judge that is asked once reads the answers, by a hash of the texts.

    The draw does not depend on the order in which the answers are given, so no order is preferred, and no process
    draws otherwise.
    """
    low, high = sorted((comparison.first, comparison.second))
    told = json.dumps([list(comparison.prompt), low, high], sort_keys=True)
    draw = hashlib.sha256(told.encode()).digest()[0] % 2
    return comparison.turned if comparison.second == (low, high)[draw] else comparison
