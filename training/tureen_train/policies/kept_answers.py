"""What is kept of a round, as records to train on and as lines of ``kept.jsonl``."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tureen.records.schema import Record
from tureen_train.policies.encoding import IDS, UNFINISHED
from tureen_train.policies.rollouts.contract import Reward, Sample
from tureen_train.policies.rollouts.rounds import Answered
from tureen_train.policies.rollouts.selections import Choice, Chosen


def make_records(answered: Answered, chosen: Chosen, specials: Collection[int]) -> list[Record]:
    """Make a record of each choice. A pair has the scores of its answers, the better one first.

    An answer is learnt as the ids that the policy wrote, which its text may not give back. Only an answer with a
    special token inside is learnt as its text, which does not have that token: nobody saw it when the answer was
    rewarded.

    Args:
        specials: the ids of the tokenizer's special tokens.
    """
    return [_make_record(answered, each, frozenset(specials)) for each in chosen.choices]


def _make_record(answered: Answered, choice: Choice, specials: frozenset[int]) -> Record:
    prompt, kept = answered.prompts[choice.prompt], _find_kept(answered, choice)
    return Record(
        prompt.messages,
        tuple(({"role": "assistant", "content": sample.text},) for sample, _ in kept),
        tuple(reward.total or 0.0 for _, reward in kept),
        prompt.id,
        {
            IDS: [find_plain_ids(sample, specials) for sample, _ in kept],
            UNFINISHED: [at for at, (sample, _) in enumerate(kept) if not sample.finished],
        },
        tools=tuple(prompt.template_arguments.get("tools", ())),
        chat_template_kwargs=prompt.template_arguments.get("chat_template_kwargs", {}),
    )


def find_plain_ids(sample: Sample, specials: frozenset[int]) -> tuple[int, ...] | None:
    inside = sample.ids[:-1] if sample.finished else sample.ids
    return None if not sample.ids or specials.intersection(inside) else sample.ids


def describe_kept(answered: Answered, chosen: Chosen) -> list[dict[str, Any]]:
    """Describe each choice as a line that every command reads as data: messages, or a pair."""
    return [_describe(answered, each) for each in chosen.choices]


def _describe(answered: Answered, choice: Choice) -> dict[str, Any]:
    prompt, kept = answered.prompts[choice.prompt], _find_kept(answered, choice)
    asked = [dict(turn) for turn in prompt.messages]
    said = [{"role": "assistant", "content": sample.text} for sample, _ in kept]
    unfinished = [at for at, (sample, _) in enumerate(kept) if not sample.finished]
    row: dict[str, Any] = {"id": prompt.id, "why": choice.why, "numbers": list(choice.numbers)}
    if len(kept) == 1:
        row |= {"messages": [*asked, *said], "rewards": _list_rewards(kept[0][1])}
    else:
        row |= {"prompt": asked, "chosen": [said[0]], "rejected": [said[1]]}
        row |= {f"score_{side}": reward.total for side, (_, reward) in zip(("chosen", "rejected"), kept, strict=True)}
    return {**row, **({UNFINISHED: unfinished} if unfinished else {}), **prompt.template_arguments}


def _list_rewards(reward: Reward) -> Mapping[str, float | None]:
    return {"total": reward.total, **reward.values}


def _find_kept(answered: Answered, choice: Choice) -> Sequence[tuple[Sample, Reward]]:
    written, rewards = answered.written[choice.prompt], answered.rewards[choice.prompt]
    return [(written[number].sample, rewards[number]) for number in choice.numbers]
