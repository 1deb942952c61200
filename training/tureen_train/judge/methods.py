"""The answers of several methods to the same prompts, joined by their prompts, and the pairs to judge."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from tureen.records.pairing import take_pair
from tureen.records.schema import UNLABELLED, BadOption, Conversation, Record


@dataclass(frozen=True)
class MethodAnswers:
    """The answers of methods to the prompts that all of them answered.

    Attributes:
        names: of the methods.
        prompts: one record for each prompt, with no score: answer m is method m's.
        left_out: the number of answers without a partner and of unusable records, by reason.
    """

    names: Sequence[str]
    prompts: Sequence[Record]
    left_out: Counter[str]

    def pair_methods(self) -> Iterator[tuple[int, int, list[Record]]]:
        """Yield each two methods by their numbers, with a record of both answers to each prompt."""
        for one, other in combinations(range(len(self.names)), 2):
            yield one, other, [take_pair(record, one, other) for record in self.prompts]


def join_methods(records: Mapping[str, Sequence[Record]]) -> MethodAnswers:
    """Join the answers of methods by their prompts, whatever their order in the files.

    A prompt that stands several times in a file, or has several answers, is joined by the number of the answer.

    Args:
        records: by method; each with a prompt and at least one answer.

    Raises:
        BadOption: there are fewer than two methods, or no prompt that all of them answered.
    """
    if len(records) < 2:
        raise BadOption("METHOD: name the files of two methods or more")
    left_out = Counter[str]()
    found = {name: _number_answers(name, own, left_out) for name, own in records.items()}
    first, *others = found.values()
    common = [key for key in first if all(key in each for each in others)]
    for name, own in found.items():
        if missing := len(own) - len(common):
            left_out[f"answers of {name} to prompts that another method did not answer"] += missing
    if not common:
        raise BadOption("METHOD: no prompt was answered by all methods; their prompts must have the same text")
    made = [_join([own[key] for own in found.values()]) for key in common]
    return MethodAnswers(list(records), made, left_out)


Answered = tuple[Record, Conversation]


def _number_answers(name: str, records: Sequence[Record], left_out: Counter[str]) -> dict[tuple[str, int], Answered]:
    """Number the answers to each prompt, in the order of the file."""
    found: dict[tuple[str, int], Answered] = {}
    seen: defaultdict[str, int] = defaultdict(int)
    for record in records:
        if not record.prompt:
            left_out[f"records of {name} without a prompt"] += 1
            continue
        key = _digest_prompt(record)
        for answer in record.answers:
            found[key, seen[key]] = record, answer
            seen[key] += 1
    return found


def _digest_prompt(record: Record) -> str:
    return hashlib.sha256(
        json.dumps([record.prompt_key, record.template_arguments], sort_keys=True).encode()
    ).hexdigest()


def _join(answered: Sequence[Answered]) -> Record:
    record = answered[0][0]
    return Record(
        record.prompt,
        tuple(answer for _, answer in answered),
        (UNLABELLED,) * len(answered),
        record.source,
        tools=record.tools,
        chat_template_kwargs=record.chat_template_kwargs,
    )
