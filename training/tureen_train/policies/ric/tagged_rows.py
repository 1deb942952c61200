"""Answers with the rewards that they obtained, as records to train on and as lines of ``kept.jsonl``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tureen.records.dialogue import assistant_turn
from tureen.records.schema import Record
from tureen_core.steering import TagSteering
from tureen_train.policies.encoding import IDS, UNFINISHED
from tureen_train.policies.kept_answers import find_plain_ids
from tureen_train.policies.ric.desired import tag_prompt
from tureen_train.policies.rollouts.contract import Prompt, Sample


@dataclass(frozen=True)
class TaggedRow:
    """An answer that is learnt.

    Attributes:
        prompt: without tags; ``desired`` is what was asked for, if the policy wrote the answer.
        obtained: its rewards, which the tags state.
        stage: where it is from, ``data`` or ``round 2``.
        why: it is kept.
    """

    prompt: Prompt
    sample: Sample
    obtained: Mapping[str, float]
    stage: str
    why: str


def make_tagged_record(row: TaggedRow, steering: TagSteering, specials: frozenset[int]) -> Record:
    """Make the record of an answer: its prompt states the rewards that it obtained.

    Args:
        specials: see :func:`tureen_train.policies.kept_answers.make_records`.
    """
    prompt, sample = _state_obtained(row, steering), row.sample
    return Record(
        prompt.messages,
        ((assistant_turn(sample.text),),),
        (0.0,),
        prompt.id,
        {IDS: [find_plain_ids(sample, specials)], UNFINISHED: [] if sample.finished else [0]},
        tools=tuple(prompt.template_arguments.get("tools", ())),
        chat_template_kwargs=prompt.template_arguments.get("chat_template_kwargs", {}),
    )


def describe_row(row: TaggedRow, steering: TagSteering) -> dict[str, Any]:
    """Describe an answer as a line that every command reads as data."""
    prompt = _state_obtained(row, steering)
    told: dict[str, Any] = {"id": prompt.id, "from": row.stage, "why": row.why}
    if row.prompt.desired is not None:
        told["desired"] = dict(row.prompt.desired)
    said = [*map(dict, prompt.messages), assistant_turn(row.sample.text)]
    told |= {"obtained": dict(row.obtained), "messages": said}
    return {**told, **({} if row.sample.finished else {UNFINISHED: [0]}), **prompt.template_arguments}


def _state_obtained(row: TaggedRow, steering: TagSteering) -> Prompt:
    return tag_prompt(replace(row.prompt, desired=row.obtained), steering)
