"""Set the best answers of the data above a policy's own, for a reward model that policies have cheated. Pure."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tureen.messages import join_content
from tureen.records.schema import Conversation, Record
from tureen_train.transforms.filters import TransformResult


def gather_answers(records: Iterable[Record]) -> dict[str, list[Conversation]]:
    """Gather a policy's answers by the key of their prompt. Their scores have no effect."""
    found: dict[str, list[Conversation]] = {}
    for record in records:
        found.setdefault(record.prompt_key, []).extend(record.answers)
    return found


def oppose_own_answers(
    records: Iterable[Record],
    own: Mapping[str, Sequence[Conversation]],
    cut: Callable[[str], str] = str,
    scramble: int | None = None,
) -> TransformResult:
    """Put the best answer of each record above its others and above all that policies wrote to the same prompt.

    A reward model that has seen good answers only may give a high reward to the nonsense into which a policy that is
    trained by it falls. Iterated online RLHF (arXiv 2204.05862) lets people compare such answers and trains the reward
    model anew. Here the best answer of the data is taken to be better than each of them.

    Args:
        own: the policies' answers by ``prompt_key``.
        cut: shortens the text of an answer of the data, so that a policy's answers, which ended at a number of tokens,
            are not known by their length.
        scramble: the seed by which the words of the best answer are shuffled into one more bad answer; None adds none.

    Returns:
        Records with the best answer first, scored 1, and the others, scored 0. Unlabelled answers are left out.
    """
    kept, left_out = [], Counter[str]()
    for record in records:
        most = max((score for score in record.scores if not math.isnan(score)), default=math.nan)
        best = [index for index, score in enumerate(record.scores) if score == most]
        if len(best) != 1:
            left_out["no single best answer"] += 1
        elif record.prompt_key not in own:
            left_out["no policy answered its prompt"] += 1
        else:
            kept.append(_oppose(record, best[0], own[record.prompt_key], cut, scramble))
    return TransformResult(kept, left_out)


def _oppose(
    record: Record, best: int, own: Sequence[Conversation], cut: Callable[[str], str], scramble: int | None
) -> Record:
    answers = [_change(answer, cut) for answer in record.answers]
    others = [answer for answer, score in zip(answers, record.scores, strict=True) if score < record.scores[best]]
    if scramble is not None:
        words = random.Random(f"{scramble} {record.prompt_key}")
        others.append(_change(answers[best], lambda text: _shuffle(text, words)))
    every = [answers[best], *others, *own]
    scores = [1.0, *(0.0 for _ in every[1:])]
    return Record(record.prompt, tuple(every), tuple(scores), record.source, tools=record.tools)


def _change(answer: Conversation, change: Callable[[str], str]) -> Conversation:
    """Change the text of the last message."""
    *before, last = answer
    return (*before, {**last, "content": change(join_content(last))})


def _shuffle(text: str, words: random.Random) -> str:
    found = text.split()
    words.shuffle(found)
    return " ".join(found)
