"""How much a text repeats itself."""

import math


def compute_distinct_bigrams(text: str) -> float:
    """Compute the share of a text's pairs of neighbouring words that are distinct (distinct-2, arXiv 1510.03055).

    1 is a text without a repeated pair. It is computed for each text alone, so it does not depend on their number.

    Returns:
        NaN for a text of fewer than two words.
    """
    words = text.split()
    pairs = list(zip(words, words[1:], strict=False))
    return len(set(pairs)) / len(pairs) if pairs else math.nan
