"""Metrics of shadows: how far the next version of a reward agrees with the live one, and what was not compared."""

from collections.abc import Callable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tureen_serve.watching.agreement import Agreement

ShadowOutcome = Literal["compared", "dropped", "failed"]
OUTCOMES: tuple[ShadowOutcome, ...] = ("compared", "dropped", "failed")


class ShadowWatch(Collector):
    """The agreements of all shadows, on a server's registry.

    Attributes:
        agreements: name of a reward → what is known of its shadow. A reward without a shadow is not in it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.agreements: dict[str, Agreement] = {}
        self._texts = Counter(
            "tureen_shadow_texts",
            "Texts chosen for a shadow, by what became of them",
            ["model", "outcome"],
            registry=registry,
        )
        registry.register(self)

    def count_texts(self, name: str, outcome: ShadowOutcome, texts: int) -> None:
        """Count texts of a reward."""
        for each in OUTCOMES:
            self._texts.labels(name, each)
        self._texts.labels(name, outcome).inc(texts)

    def collect(self) -> Iterator[Metric]:
        """Compute all numbers."""
        yield self._measure(
            "tureen_shadow_pair_agreement",
            "Share of pairs of answers that a reward and its shadow order the same way",
            lambda each: each.pair_agreement,
        )
        yield self._measure(
            "tureen_shadow_rank_correlation",
            "Rank correlation of a reward and its shadow over recent texts",
            Agreement.compute_rank_correlation,
        )
        yield self._measure(
            "tureen_shadow_mean_difference",
            "Mean difference of a shadow from its reward over recent texts",
            lambda each: each.mean_difference,
        )
        yield self._measure(
            "tureen_shadow_population_stability",
            "Population stability index of a shadow's recent scores against its calibration",
            lambda each: each.shadow_drift.compute_stability(),
        )
        yield self._measure(
            "tureen_shadow_kolmogorov_smirnov",
            "Kolmogorov-Smirnov distance of a shadow's recent scores from its calibration",
            lambda each: each.shadow_drift.compute_distance(),
        )

    def _measure(self, name: str, about: str, read: Callable[[Agreement], float | None]) -> Metric:
        found = GaugeMetricFamily(name, about, labels=["model"])
        for reward, agreement in self.agreements.items():
            value = read(agreement)
            if value is not None:
                found.add_metric([reward], value)
        return found
