"""Select pairs: RLHFlow's filter of turns, the ratio of scores for SHP, and the mean rating. Pure.

Each function returns the kept records, and the number of those left out by reason.
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
    """The kept records, and the number of records or pairs left out, by reason."""

    records: list[Record]
    left_out: Mapping[str, int]


def keep_alternating(records: Iterable[Record]) -> TransformResult:
    """Filter records by their turns, as RLHFlow filters pairs (``pair-pm/process_pair_data.py``).

    A record may have any number of answers. It is kept if all its conversations have the same even number of messages,
    if user and assistant alternate, if no message is empty, and if the conversations differ only in the last message.
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
    """Keep the pairs whose better score is more than ``ratio`` times the worse one, as RLHFlow does with SHP.

    A pair with a score of 0 or less has no ratio and is left out.

    Args:
        records: split into pairs first.
        ratio: 1 or more.
        most: the most pairs to keep for one prompt, over all its records. If there are more, some are drawn.
        seed: draws these pairs.

    Raises:
        BadOption: ``ratio`` or ``most`` is below 1.
    """
    if not ratio >= 1 or most < 1:
        raise BadOption(f"--ratio and --most must be 1 or more, not {ratio:g} and {most}")
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
    """Make all pairs of the answers to a prompt, ranked by their mean rating. Equal means make no pair.

    RLHFlow does so with UltraFeedback (the fine-grained mean, 6 pairs of 4 answers) and with HelpSteer (the mean of
    helpfulness and correctness). Records with the same prompt are merged first, because in many files a row has one
    answer.

    Args:
        records: records with rated answers.
        attributes: the ratings to average. If none is named, all ratings of an answer are averaged.

    Raises:
        BadOption: no record has one of ``attributes``.
    """
    everything = merge_prompts(records)
    known = {name for record in everything for name in record.attributes}
    for name in attributes:
        if name not in known:
            raise BadOption(
                f"--attribute: no record has the rating {name!r}; the ratings are: {', '.join(sorted(known)) or 'none'}"
            )
    kept, left_out = [], Counter[str]()
    for record in everything:
        scored = replace(record, scores=_means(record, attributes))
        pairs = list(split_into_pairs([scored]))
        kept += pairs
        left_out["an answer with a missing rating"] += sum(map(math.isnan, scored.scores))
        left_out["equal means"] += sum(one == other for one, other in combinations(scored.scores, 2))
        left_out["a prompt with one answer"] += len(scored.answers) == 1
    return TransformResult(kept, +left_out)


def merge_prompts(records: Iterable[Record]) -> list[Record]:
    """Merge records with the same prompt into one, with all their answers and ratings.

    ``meta`` is that of the first record, without ``names`` and ``similarity``. Records without a prompt come last.
    """
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
    """The mean of each answer's named ratings, NaN if one is missing; or of all its ratings, NaN if it has none."""
    rows = zip(*(_rated(record, name) for name in attributes or record.attributes), strict=True)
    if attributes:
        return tuple(math.fsum(row) / len(row) for row in rows)
    present = [[value for value in row if not math.isnan(value)] for row in rows]
    means = tuple(math.fsum(row) / len(row) if row else UNLABELLED for row in present)
    return means or (UNLABELLED,) * len(record.answers)
