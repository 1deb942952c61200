"""The prompts that a policy answers: those of a run's records, each once, and which of them a round draws."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tureen.errors import Unprocessable
from tureen.records.schema import Record
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.policies.encoding import encode_prompt
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.records.encoding_report import EncodingReport

TOO_LONG = "longer than sampling.max_prompt"
UNREADABLE = "that the chat template does not render"


@dataclass(frozen=True)
class PromptSet:
    """The prompts of some records.

    Attributes:
        prompts: in the records' order.
        lengths: the number of tokens of each.
        repeated: the number of records whose prompt an earlier record has.
        report: how many are left out, and why.
    """

    prompts: Sequence[Prompt]
    lengths: Sequence[int]
    repeated: int
    report: EncodingReport


class PlaceNames:
    """Names records by the file and line where they stand. No two have one name, also of files with the same name."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def name_place(self, record: Record) -> str:
        """Name the next record."""
        name = Path(record.source).name
        self._given[name] += 1
        return name if self._given[name] == 1 else f"{name}#{self._given[name]}"


def collect_prompts(records: Sequence[Record], renderer: Renderer, longest: int) -> PromptSet:
    """Collect the prompts of records. White space does not make another prompt; tools and template arguments do.

    Args:
        longest: ``sampling.max_prompt``, in tokens.
    """
    prompts: list[Prompt] = []
    lengths: list[int] = []
    seen: set[tuple[str, str]] = set()
    left_out: Counter[str] = Counter({TOO_LONG: 0, UNREADABLE: 0})
    names = PlaceNames()
    repeated = 0
    for record in records:
        key = (record.prompt_key, json.dumps(record.template_arguments, sort_keys=True))
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        try:
            length = len(encode_prompt(renderer, record.prompt, record.template_arguments))
        except Unprocessable:
            left_out[UNREADABLE] += 1
            continue
        if length > longest:
            left_out[TOO_LONG] += 1
            continue
        prompts.append(Prompt(names.name_place(record), record.prompt, template_arguments=record.template_arguments))
        lengths.append(length)
    return PromptSet(prompts, lengths, repeated, EncodingReport("prompts", len(prompts), left_out))


def check_prompts(found: PromptSet, most_dropped: float) -> None:
    """Refuse prompts of which none is left, or too many are left out.

    Args:
        most_dropped: the largest share that may be left out, ``data.most_dropped``.

    Raises:
        RecipeError: with the reasons.
    """
    report = found.report
    if not found.prompts:
        why = report.reasons or "there is none"
        raise RecipeError(f"data.train: no prompt is left to answer: {why}; raise sampling.max_prompt, or add prompts")
    if report.lost > most_dropped * (report.kept + report.lost):
        raise RecipeError(
            f"data.train: {report.lost} of {report.kept + report.lost} prompts are left out ({report.reasons}), more "
            f"than the share of {most_dropped:g} that data.most_dropped allows; raise it, or sampling.max_prompt"
        )


def draw_prompts(found: PromptSet, round_number: int, size: int | None, seed: int) -> list[Prompt]:
    """Draw the prompts of a round, the longest first.

    A round takes the prompts that the rounds before it took least often, in an order that the seed and the round
    decide. So no prompt is drawn again before all others have been drawn.

    Args:
        round_number: counts from 1.
        size: the number of prompts; None takes all, and so does a number that is larger than theirs.
    """
    drawn: Counter[int] = Counter()
    chosen = list(range(len(found.prompts)))
    for number in range(1, round_number + 1):
        keys = {at: (drawn[at], _hash(f"{seed} {number} {found.prompts[at].id}")) for at in range(len(found.prompts))}
        chosen = sorted(keys, key=keys.__getitem__)[:size]
        drawn.update(chosen)
    return [found.prompts[at] for at in sorted(chosen, key=lambda at: (-found.lengths[at], at))]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
