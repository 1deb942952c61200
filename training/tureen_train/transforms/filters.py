"""Which pairs are used: RLHFlow's filter of turns, SHP's ratio of scores, and pairs by a mean of ratings. Pure.

Each gives what is left and how many records or pairs were left out, by reason.
"""

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tureen.messages import join_content
from tureen.records.pairing import split_into_pairs
from tureen.records.schema import UNLABELLED, BadOption, Conversation, Record

ROLES = ("user", "assistant")


@dataclass(frozen=True)
class TransformResult:
    """What a transform gives: its records, and how many others it left out, by reason."""

    records: list[Record]
    left_out: Mapping[str, int]


def keep_alternating(records: Iterable[Record]) -> TransformResult:
    """RLHFlow's filter of pairs (``pair-pm/process_pair_data.py``), of records with any number of answers.

    Kept are records whose conversations have one even number of messages, user and assistant by turns, none empty,
    and differ in the last message only.
    """
    kept, left_out = [], Counter[str]()
    for record in records:
        reason = _fault(record.conversations)
        if reason is None:
            kept.append(record)
        else:
            left_out[reason] += 1
    return TransformResult(kept, left_out)


def _fault(conversations: Sequence[Conversation]) -> str | None:
    if any(len(each) % 2 for each in conversations):
        return "an odd number of messages"
    if len({len(each) for each in conversations}) > 1:
        return "numbers of messages differ"
    if any(turn["role"] != ROLES[at % 2] for each in conversations for at, turn in enumerate(each)):
        return "turns do not alternate"
    if not all(join_content(turn) for each in conversations for turn in each):
        return "an empty message"
    if any(each[:-1] != conversations[0][:-1] for each in conversations):
        return "contexts differ"
    return None


def pair_by_score_ratio(records: Iterable[Record], ratio: float = 2.0, most: int = 5, seed: int = 0) -> TransformResult:
    """Pairs of one prompt whose better score is more than ``ratio`` times the worse one, ``most`` of each prompt.

    How RLHFlow takes SHP. A pair with a score that is not positive has no ratio and is left out.

    Args:
        most: pairs of one prompt, over all its records, drawn with ``seed``.

    Raises:
        BadOption: ``ratio`` is below 1 or ``most`` below 1.
    """
    if not ratio >= 1 or most < 1:
        raise BadOption(f"the ratio must be 1 or more and the pairs of a prompt 1 or more, are {ratio:g} and {most}")
    clear: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    left_out = Counter[str]()
    for number, pair in enumerate(split_into_pairs(records)):
        better, worse = pair.scores
        if worse <= 0:
            left_out["a score that is not positive"] += 1
        elif better <= ratio * worse:
            left_out[f"a ratio of {ratio:g} or less"] += 1
        else:
            clear[pair.prompt_key].append((number, pair))
    drawn = random.Random(seed)
    kept = [each for pairs in clear.values() for each in drawn.sample(pairs, min(most, len(pairs)))]
    left_out[f"more than {most} pairs of a prompt"] += sum(map(len, clear.values())) - len(kept)
    return TransformResult([pair for _, pair in sorted(kept, key=lambda each: each[0])], +left_out)


def pair_by_mean(records: Iterable[Record], attributes: Collection[str] = ()) -> TransformResult:
    """All pairs of a prompt's answers by the mean of their ratings, equal means left out.

    How RLHFlow takes UltraFeedback (the fine-grained mean, 6 pairs of 4 answers) and HelpSteer (the mean of
    helpfulness and correctness). Records of one prompt are put together first, since many files have one answer a row.

    Args:
        attributes: the ratings that are averaged; all that an answer has, where none is named.

    Raises:
        BadOption: no record has one of ``attributes``.
    """
    everything = merge_prompts(records)
    known = {name for record in everything for name in record.attributes}
    for name in attributes:
        if name not in known:
            raise BadOption(f"no record is rated by {name!r}; there is {', '.join(sorted(known)) or 'nothing'}")
    kept, left_out = [], Counter[str]()
    for record in everything:
        scored = replace(record, scores=_means(record, attributes))
        pairs = list(split_into_pairs([scored]))
        kept += pairs
        left_out["an answer that is not rated by all"] += sum(map(math.isnan, scored.scores))
        left_out["equal means"] += sum(one == other for one, other in combinations(scored.scores, 2))
        left_out["a prompt with one answer"] += len(scored.answers) == 1
    return TransformResult(kept, +left_out)


def merge_prompts(records: Iterable[Record]) -> list[Record]:
    """Records of equal prompts as one, with all their answers and ratings; meta is the first one's, names aside."""
    found: dict[str, list[Record]] = defaultdict(list)
    whole = []
    for record in records:
        if record.prompt:
            found[json.dumps(record.prompt)].append(record)
        else:
            whole.append(record)
    return [_joined(same) if len(same) > 1 else same[0] for same in found.values()] + whole


def _joined(same: Sequence[Record]) -> Record:
    names = list(dict.fromkeys(name for record in same for name in record.attributes))
    return Record(
        same[0].prompt,
        tuple(answer for record in same for answer in record.answers),
        tuple(score for record in same for score in record.scores),
        same[0].source,
        {name: value for name, value in same[0].meta.items() if name not in ("names", "similarity")},
        {name: tuple(value for record in same for value in _rated(record, name)) for name in names},
        tuple(labels for record in same for labels in record.steps) if all(each.steps for each in same) else (),
    )


def _rated(record: Record, name: str) -> Sequence[float]:
    return record.attributes.get(name, (UNLABELLED,) * len(record.answers))


def _means(record: Record, attributes: Collection[str]) -> tuple[float, ...]:
    """An answer's mean of the named ratings, NaN where one is missing; of all it has, NaN where it has none."""
    rows = zip(*(_rated(record, name) for name in attributes or record.attributes), strict=True)
    if attributes:
        return tuple(math.fsum(row) / len(row) for row in rows)
    present = [[value for value in row if not math.isnan(value)] for row in rows]
    means = tuple(math.fsum(row) / len(row) if row else UNLABELLED for row in present)
    return means or (UNLABELLED,) * len(record.answers)
