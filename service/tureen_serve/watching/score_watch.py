"""Metrics of scores: their distribution by reward and caller, drift, length correlation, spread and ties.

A text costs constant time, and the memory is bounded. The numbers are computed when Prometheus asks for them. All of it
runs on the event loop.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tureen_core.calibration import Calibration
from tureen_serve.watching.reward_watch import BucketCounts, RewardWatch

DEVIATIONS = (-4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4)
CALLERS = 64
UNNAMED, OTHER = "unnamed", "other"


class ScoreWatch(Collector):
    """Watches the scores of all rewards, on a server's registry.

    Args:
        callers: the number of callers with a name of their own in the metrics; further ones are called ``other``.
    """

    def __init__(self, registry: CollectorRegistry, callers: int = CALLERS) -> None:
        self._rewards: dict[str, RewardWatch] = {}
        self._scores: dict[tuple[str, str], BucketCounts] = {}
        self._callers: dict[str, str] = {}
        self._most_callers = callers
        registry.register(self)

    def take_scores(self, name: str, scores: Iterable[float], caller: str | None) -> None:
        """Count scores in deviations, whatever the reward reads.

        Args:
            caller: the name of the key that asked; None without keys and for batches.
        """
        key = name, self._bound_caller(caller)
        counts = self._scores.get(key)
        if counts is None:
            counts = self._scores[key] = BucketCounts(DEVIATIONS)
        for score in scores:
            counts.add_value(score)

    def take_answers(
        self, name: str, version: str, scores: Sequence[float], lengths: Sequence[int], scale: Calibration | None
    ) -> None:
        """Watch the finite scores of the answers to one prompt. Not for soups: each request may have another mix.

        Args:
            version: the reward's fingerprint. The recent scores of another one are forgotten.
            scores: in deviations of ``scale``, raw if it is None.
            lengths: tokens of each answer with its prompt.
        """
        watch = self._rewards.get(name)
        if watch is None:
            watch = self._rewards[name] = RewardWatch(version)
        elif watch.version != version:
            watch.begin_version(version)
        # neither without a calibration, nor with that of an old manifest that had no such field
        fitted = scale is not None and (scale.mean != 0 or scale.std != 1)
        watch.take_answers(scores, lengths, scale is not None, fitted)

    def collect(self) -> Iterator[Metric]:
        """Compute all numbers."""
        about = "Rewards in deviations of their calibration, by the name of the caller's key"
        scores = (({"model": name, "caller": caller}, found) for (name, caller), found in self._scores.items())
        yield _make_histogram("tureen_score", about, scores)
        about = "Standard deviation of the scores of one prompt's answers"
        spreads = (({"model": name}, watch.spread) for name, watch in self._rewards.items())
        yield _make_histogram("tureen_score_group_spread", about, spreads)
        yield self._count("tureen_compared_pairs", "Pairs of answers to one prompt", lambda watch: watch.pairs)
        yield self._count("tureen_tied_pairs", "Pairs of answers with equal scores", lambda watch: watch.tied)
        yield from self._measure_drift()
        yield self._measure_length()

    def _bound_caller(self, caller: str | None) -> str:
        known = self._callers.get(caller or UNNAMED)
        if known is None:
            if len(self._callers) >= self._most_callers:
                return OTHER
            known = self._callers[caller or UNNAMED] = caller or UNNAMED
        return known

    def _count(self, name: str, about: str, read: Callable[[RewardWatch], int]) -> Metric:
        found = CounterMetricFamily(name, about, labels=["model"])
        for reward, watch in self._rewards.items():
            found.add_metric([reward], read(watch))
        return found

    def _measure_drift(self) -> Iterator[Metric]:
        """Measure the recent scores of each reward that has a fitted calibration."""
        measures: dict[str, tuple[str, Callable[[RewardWatch], float | None]]] = {
            "tureen_score_drift_texts": (
                "Recent texts that drift is measured on",
                lambda watch: watch.drift.texts,
            ),
            "tureen_score_population_stability": (
                "Population stability index of recent scores against the calibration",
                lambda watch: watch.drift.compute_stability(),
            ),
            "tureen_score_kolmogorov_smirnov": (
                "Kolmogorov-Smirnov distance of recent scores from the calibration",
                lambda watch: watch.drift.compute_distance(),
            ),
            "tureen_score_recent_mean": (
                "Mean of recent scores in deviations of the calibration",
                lambda watch: watch.lengths.join_blocks().mean_y,
            ),
            "tureen_score_recent_deviation": (
                "Standard deviation of recent scores in deviations of the calibration",
                lambda watch: watch.lengths.join_blocks().deviation_y,
            ),
        }
        for name, (about, read) in measures.items():
            found = GaugeMetricFamily(name, about, labels=["model"])
            for reward, watch in self._rewards.items():
                value = read(watch) if watch.drift.texts else None
                if value is not None:
                    found.add_metric([reward], value)
            yield found

    def _measure_length(self) -> Metric:
        about = "Correlation of recent scores and lengths in tokens, over all texts or within each prompt's answers"
        found = GaugeMetricFamily("tureen_score_length_correlation", about, labels=["model", "within"])
        for name, watch in self._rewards.items():
            for within, moments in (("all", watch.lengths.join_blocks()), ("prompt", watch.within.pool_blocks())):
                if moments.correlation is not None:
                    found.add_metric([name, within], moments.correlation)
        return found


def _make_histogram(name: str, about: str, series: Iterable[tuple[Mapping[str, str], BucketCounts]]) -> Metric:
    """Make a histogram. One with negative bounds has no sum, because a sum that falls looks like a restart."""
    found = Metric(name, about, "histogram")
    for labels, known in series:
        below = 0
        for bound, count in zip((*known.bounds, math.inf), known.counts, strict=True):
            below += count
            text = "+Inf" if bound == math.inf else str(float(bound))
            found.add_sample(f"{name}_bucket", {**labels, "le": text}, below)
        found.add_sample(f"{name}_count", dict(labels), below)
        if known.bounds[0] >= 0:
            found.add_sample(f"{name}_sum", dict(labels), known.total)
    return found
