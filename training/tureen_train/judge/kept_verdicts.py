"""What a judge said, in a file that only grows: a row for each reply. So nothing is asked twice, also after a kill."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen_train.judge.configuration import Choice
from tureen_train.runs.line_file import LineFile


@dataclass(frozen=True)
class JudgeReply:
    """A reply of a judge.

    Attributes:
        keys: the questions that it was asked, see :func:`.prompts.digest_question`.
        verdicts: one for each; None if the reply has another number of verdicts.
        text: the reply.
        read: the tokens of the request as the server counted them; 0 if it did not.
        written: the tokens of the reply.
    """

    keys: Sequence[str]
    verdicts: Sequence[Choice] | None
    text: str
    read: int = 0
    written: int = 0


class KeptVerdicts:
    """The verdicts in a file. One process writes it.

    Args:
        path: the file; it is made where there is none.

    Raises:
        ValueError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self._verdicts: dict[str, Choice] = {}
        self._unparsed: dict[str, str] = {}
        self._split: set[str] = set()
        for row in self._file.rows:
            if "asked" in row:  # not a row of an earlier version, whose questions had another wording
                self._take(row["asked"], row["verdicts"], row["text"])

    def add(self, reply: JudgeReply, model: str, configuration: str) -> None:
        """Keep a reply, so that it is in the file when this returns. Threads may call this at the same time."""
        self._file.append(
            {
                "asked": list(reply.keys),
                "verdicts": None if reply.verdicts is None else list(reply.verdicts),
                "text": reply.text,
                "read": reply.read,
                "written": reply.written,
                "model": model,
                "configuration": configuration,
            }
        )
        self._take(reply.keys, reply.verdicts, reply.text)

    def is_answered(self, key: str) -> bool:
        """Whether a question needs no further request, because it has a verdict or a reply without one."""
        return key in self._verdicts or key in self._unparsed

    def is_split(self, key: str) -> bool:
        """Whether a question was asked together with others, in vain, so that it is asked alone."""
        return key in self._split

    def find_verdict(self, key: str) -> Choice | None:
        """The verdict on an answered question; None if the reply to it had none."""
        return self._verdicts.get(key)

    def find_unparsed(self, key: str) -> str | None:
        """The reply to a question that has no verdict; None for other questions."""
        return self._unparsed.get(key)

    def _take(self, keys: Sequence[str], verdicts: Sequence[Choice] | None, text: str) -> None:
        if verdicts is not None:
            self._verdicts.update(zip(keys, verdicts, strict=True))
        elif len(keys) == 1:
            self._unparsed[keys[0]] = text
        else:
            self._split.update(keys)
