"""What is known of the recent scores of one reward: drift, length, spread and ties. Pure."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from tureen_serve.watching.drift import DriftWindow
from tureen_serve.watching.moments import Moments, RecentMoments

SPREADS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class BucketCounts:
    """The counts of a histogram.

    Args:
        bounds: the upper bounds of the buckets; one more bucket has no bound.

    Attributes:
        counts: the number of values in each bucket.
        total: the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add_value(self, value: float) -> None:
        """Count a value. A value that equals a bound is in the bound's bucket."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RewardWatch:
    """The scores of one version of one reward that reads whole answers.

    Args:
        version: the reward's fingerprint.

    Attributes:
        version: as the argument.
        drift: the last scores; empty for a reward without a fitted calibration.
        lengths: of the last texts, x is the length in tokens of prompt and answer, and y the score.
        within: the same about the means of each prompt's answers, so that the prompt's length does not count.
        spread: of the answers to one prompt, the standard deviation of their scores.
        pairs: the number of pairs of answers to one prompt.
        tied: the number of these pairs with equal scores.
    """

    __slots__ = ("version", "drift", "lengths", "within", "spread", "pairs", "tied")

    def __init__(self, version: str) -> None:
        self.spread = BucketCounts(SPREADS)
        self.pairs = self.tied = 0
        self.begin_version(version)

    def begin_version(self, version: str) -> None:
        """Forget the recent scores, which another version gave. What is counted since the start stays."""
        self.version = version
        self.drift = DriftWindow()
        self.lengths = RecentMoments()
        self.within = RecentMoments()

    def take_answers(self, scores: Sequence[float], lengths: Sequence[int], scaled: bool, fitted: bool) -> None:
        """Take the answers to one prompt.

        Args:
            scores: finite scores, in deviations if ``scaled`` and else raw.
            lengths: tokens of each answer with its prompt.
            scaled: whether the reward has a calibration.
            fitted: whether the calibration was fitted on answers.
        """
        for score, length in zip(scores, lengths, strict=True):
            if fitted:
                self.drift.add_score(score)
            self.lengths.find_block().add_pair(length, score)
        if len(scores) > 1:
            self._take_group(scores, lengths, scaled)

    def _take_group(self, scores: Sequence[float], lengths: Sequence[int], scaled: bool) -> None:
        group = Moments()
        for score, length in zip(scores, lengths, strict=True):
            group.add_pair(length, score)
        self.within.find_block().pool(group)
        self.pairs += math.comb(len(scores), 2)
        if len(set(scores)) < len(scores):
            self.tied += sum(math.comb(often, 2) for often in Counter(scores).values())
        if scaled:
            self.spread.add_value(group.deviation_y)
