"""New pairs from existing ones: RRM's counterfactual pairs, and pairs labelled by a model. Pure."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tureen.records.pairing import split_into_pairs
from tureen.records.schema import BadOption, Record
from tureen_train.transforms.filters import TransformResult

Side = tuple[str, str]

# i is the pair, j and k are its partners; w is the better answer, l the worse one (arXiv 2409.13156). RLHFlow's order.
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
    """Make RRM's 14 extra pairs for each pair, so that a model also learns whether an answer fits its prompt.

    The pairs are put into a random circle, and the two pairs after a pair are its partners. In 8 extra pairs an answer
    to the prompt, the better or the worse one, beats an answer of a partner. In 6 extra pairs both answers are the
    partners', and they tie. ``meta["augmented"]`` names the two answers, as ``iw jl``. A partner with the same prompt
    has answers that do fit it, so the extra pairs with these answers are left out.

    Args:
        records: split into pairs first. Pairs without a common prompt get no extra pairs.
        seed: draws the circle.

    Raises:
        BadOption: there are fewer than three pairs with a common prompt.
    """
    pairs = list(split_into_pairs(records))
    items = [pair for pair in pairs if pair.prompt]
    if len(items) < 3:
        raise BadOption(
            f"RRM needs at least three pairs whose answers have a common prompt; the data have {len(items)}"
        )
    circle = random.Random(seed).sample(range(len(items)), len(items))
    place = {index: at for at, index in enumerate(circle)}
    kept, left_out = [], Counter[str]({"no common prompt": len(pairs) - len(items)})
    for index, item in enumerate(items):
        j, k = (items[circle[(place[index] + step) % len(circle)]] for step in (1, 2))
        alike = [own for own, partner in (("j", j), ("k", k)) if partner.prompt_key == item.prompt_key]
        for sides, scores in [(sides, (1.0, 0.0)) for sides in WINS] + [(sides, (0.5, 0.5)) for sides in TIES]:
            if any(side[0] in alike for side in sides):
                left_out["a partner with the same prompt"] += 1
            else:
                kept.append(_row({"i": item, "j": j, "k": k}, sides, scores))
    return TransformResult(kept, +left_out)


def _row(items: Mapping[str, Record], sides: Side, scores: tuple[float, float]) -> Record:
    answers = tuple(items[name[0]].answers["wl".index(name[1])] for name in sides)
    return Record(items["i"].prompt, answers, scores, items["i"].source, {"augmented": " ".join(sides)})


def label_by_model(
    records: Sequence[Record], probabilities: Sequence[float | None], threshold: float = 0.8
) -> TransformResult:
    """Keep the pairs on which a model is confident, and label them by the model (SSRM, arXiv 2409.06903).

    The record's own label has no effect. If the model's label contradicts it, the new record has ``meta["turned"]``.
    RLHFlow's script keeps the old order even if p < ½, which labels confident pairs the wrong way round.

    Args:
        records: records of two answers each.
        probabilities: for each record, the probability p that its first answer is better; None if it is too long.
        threshold: a pair is kept if max(p, 1 − p) is above this.

    Returns:
        Records with the preferred answer first, scores 1 and 0, and its probability in ``meta["chosen_prob"]``.

    Raises:
        BadOption: ``threshold`` is not between ½ and 1.
    """
    if not 0.5 <= threshold <= 1:
        raise BadOption(f"--threshold: use 0.5 to 1, not {threshold:g}")
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
    """Count the records whose new label contradicts the label of their file."""
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
