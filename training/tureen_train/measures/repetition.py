"""How much a text repeats itself."""

import math
from collections.abc import Sequence
from typing import Any


def compute_distinct_bigrams(text: str) -> float:
    """Compute the share of a text's pairs of neighbouring words that are distinct (distinct-2, arXiv 1510.03055).

    1 is a text without a repeated pair. It is computed for each text alone, so it does not depend on their number.

    Returns:
        NaN for a text of fewer than two words.
    """
    words = text.split()
    pairs = list(zip(words, words[1:], strict=False))
    return len(set(pairs)) / len(pairs) if pairs else math.nan


def reward_variety(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:  # noqa: ARG001  (the source's signature)
    """Reward answers by their distinct-2, beside a reward model that would be hacked by repetition.

    In a recipe: ``{source: function, function: "tureen_train.measures.repetition:reward_variety", scale: calibrated,
    weight: 3}``. An answer of fewer than two words has 1.
    """
    found = map(compute_distinct_bigrams, answers)
    return [1.0 if math.isnan(each) else each for each in found]
