"""More pairs from those there are: RRM's counterfactual rows, and pairs that a model labels. Pure."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tureen.records.pairing import split_into_pairs
from tureen.records.schema import BadOption, Record
from tureen_train.transforms.filters import TransformResult

Side = tuple[str, str]

# Of item i and its partners j and k, w the better and l the worse answer (arXiv 2409.13156; RLHFlow's order of rows).
WINS: tuple[Side, ...] = (
    ("iw", "jw"),
    ("iw", "kw"),
    ("iw", "jl"),
    ("iw", "kl"),
    ("il", "jw"),
    ("il", "kw"),
    ("il", "jl"),
    ("il", "kl"),
)
TIES: tuple[Side, ...] = (("jw", "jl"), ("kw", "kl"), ("jw", "kw"), ("jw", "kl"), ("kw", "jl"), ("jl", "kl"))


def add_counterfactuals(records: Iterable[Record], seed: int = 0) -> TransformResult:
    """RRM's 14 extra rows of each pair, so that a model looks at the prompt and not at the answers alone.

    Each pair has two partners, those that follow it in a seeded circle, so none is its own. In 8 rows its answers,
    better or worse, beat theirs; in 6 both answers are theirs and neither is better. ``meta["augmented"]`` says which
    row it is. Rows whose partner has the same prompt are left out, since its answers do fit.

    Raises:
        BadOption: there are fewer than three pairs with a shared prompt.
    """
    pairs = list(split_into_pairs(records))
    items = [pair for pair in pairs if pair.prompt]
    if len(items) < 3:
        raise BadOption(f"two partners of each pair need three pairs of one prompt each; there are {len(items)}")
    circle = random.Random(seed).sample(range(len(items)), len(items))
    place = {index: at for at, index in enumerate(circle)}
    kept, left_out = [], Counter[str]({"no prompt that both answers share": len(pairs) - len(items)})
    for index, item in enumerate(items):
        j, k = (items[circle[(place[index] + step) % len(circle)]] for step in (1, 2))
        alike = [own for own, partner in (("j", j), ("k", k)) if partner.prompt_key == item.prompt_key]
        for sides, scores in [(sides, (1.0, 0.0)) for sides in WINS] + [(sides, (0.5, 0.5)) for sides in TIES]:
            if any(side[0] in alike for side in sides):
                left_out["a partner of the same prompt"] += 1
            else:
                kept.append(_row({"i": item, "j": j, "k": k}, sides, scores))
    return TransformResult(kept, +left_out)


def _row(items: Mapping[str, Record], sides: Side, scores: tuple[float, float]) -> Record:
    answers = tuple(items[name[0]].answers["wl".index(name[1])] for name in sides)
    return Record(items["i"].prompt, answers, scores, items["i"].source, {"augmented": " ".join(sides)})


def label_by_model(
    records: Sequence[Record], probabilities: Sequence[float | None], threshold: float = 0.8
) -> TransformResult:
    """Pairs as a model judges them, where it is sure (SSRM, arXiv 2409.06903): the likelier answer first.

    What the record said of the two is not looked at, but that the model turned it is counted under ``turned``.
    RLHFlow's script keeps the old order also where p < ½, so that what it is surest of is labelled wrong.

    Args:
        records: of two answers each.
        probabilities: that the first is better; None where the model could not read it.
        threshold: kept where max(p, 1 − p) is above.

    Returns:
        Scores 1 and 0, and ``meta["chosen_prob"]``, the probability of the one that is chosen now.

    Raises:
        BadOption: ``threshold`` is not ½ to 1.
    """
    if not 0.5 <= threshold <= 1:
        raise BadOption(f"the threshold must be 0.5 to 1, is {threshold:g}")
    kept, left_out = [], Counter[str]()
    for record, chance in zip(records, probabilities, strict=True):
        if chance is None:
            left_out["too long for the model"] += 1
        elif max(chance, 1 - chance) <= threshold:
            left_out["not sure enough"] += 1
        else:
            kept.append(_labelled(record, chance))
    return TransformResult(kept, left_out)


def count_turned(records: Iterable[Record]) -> int:
    """How many pseudo-labelled records name another answer than their file did."""
    return sum(bool(record.meta.get("turned")) for record in records)


def _labelled(record: Record, chance: float) -> Record:
    first, second = record.scores
    order = (0, 1) if chance > 0.5 else (1, 0)
    against = second > first if order == (0, 1) else first > second
    meta = {**record.meta, "chosen_prob": max(chance, 1 - chance), **({"turned": True} if against else {})}
    return replace(
        record,
        answers=tuple(record.answers[index] for index in order),
        scores=(1.0, 0.0),
        meta=meta,
        attributes={name: tuple(values[index] for index in order) for name, values in record.attributes.items()},
        steps=tuple(record.steps[index] for index in order) if record.steps else (),
    )
