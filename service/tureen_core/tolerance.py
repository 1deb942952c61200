"""How far a probe's reading may be from the artifact's own number before an artifact is refused.

A probe of a LoRA artifact is read at several weights of its adapter: at 1, as it is served; at 0, which is the bare
base under the artifact's head; and, where the adapter's effect at 1 would drown in the rounding of bfloat16, at one
larger weight. A lost, damaged or foreign adapter changes the largest of them by about the adapter's whole effect.

An objective's tolerance is a share of its own numbers over the probes, so that an objective of a small scale is
checked as closely as one of a large scale. As it is served, it is a share of their range; at the largest recorded
weight, of the adapter's effect, which is the largest difference from the bare base.
"""

import math
from collections.abc import Sequence

from tureen_core.manifest import Manifest, Probe

LOGPROB = "logprob"
SERVED = 1.0
BARE = 0.0
WEIGHTS = (SERVED, 4.0, 8.0, 16.0)
SHARE_OF_RANGE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.15}
SHARE_OF_EFFECT = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.25}
NOISE = 1e-6  # of float32 arithmetic, relative to the larger of 1 and the numbers


def name_reading(name: str, weight: float) -> str:
    """The key in a probe's ``scores`` of objective ``name`` read at ``weight`` of the adapter.

    Example:
        >>> name_reading("harmless", 8.0), name_reading("harmless", 1.0)
        ('harmless@8', 'harmless')
    """
    return name if weight == SERVED else f"{name}@{weight:g}"


def get_reading(probe: Probe, name: str, weight: float = SERVED) -> float | None:
    """A probe's recorded number for an objective, or None. ``LOGPROB`` names an expert's mean log-probability."""
    if name == LOGPROB and weight == SERVED:
        return probe.logprob
    return probe.scores.get(name_reading(name, weight))


def list_checked_weights(probes: Sequence[Probe], name: str) -> list[float]:
    """The weights of the adapter at which an objective was recorded and is checked; the bare base is not."""
    return [weight for weight in WEIGHTS if any(get_reading(probe, name, weight) is not None for probe in probes)]


def compute_tolerance(manifest: Manifest, name: str, dtype: str, weight: float = SERVED) -> float:
    """How far an objective's reading may be from the recorded one, in the reading's own unit.

    The manifest's own ``tolerance`` is an upper bound in float32, and all there is for an artifact of one probe.

    Args:
        manifest: the artifact's.
        name: an objective, or ``LOGPROB``.
        dtype: the dtype that the runtime computes in: ``float32``, ``float16`` or ``bfloat16``.
        weight: the weight of the adapter at which the probe is read.
    """
    stated = manifest.tolerance.get(dtype, 0.0)
    values = _list_readings(manifest.probes, name, weight)
    if len(values) < 2 or dtype not in SHARE_OF_RANGE:
        return stated
    largest = max(list_checked_weights(manifest.probes, name))
    bare = _list_readings(manifest.probes, name, BARE) if weight == largest else []
    found = share_tolerance(values, bare, dtype, weight)
    return min(found, stated) if dtype == "float32" and weight == SERVED else found


def share_tolerance(values: Sequence[float], bare: Sequence[float], dtype: str, weight: float = SERVED) -> float:
    """The tolerance of one objective's readings over the probes; never below float32's own rounding.

    Args:
        values: the readings at ``weight`` of the adapter.
        bare: the readings from the bare base, where the adapter's effect is checked at this weight; else empty.
        dtype: the dtype that the readings to be checked are computed in.
        weight: the weight of the adapter.
    """
    shares = [SHARE_OF_RANGE[dtype] * compute_range(values)] if weight == SERVED else []
    if bare:
        shares.append(SHARE_OF_EFFECT[dtype] * compute_difference(values, bare))
    return max(min(shares), NOISE * max(1.0, *(abs(value) for value in values)))


def rank_probes(manifest: Manifest, names: Sequence[str]) -> list[int]:
    """Indices of the probes, first the one on which the adapter has the largest effect, relative to all its probes.

    Without readings from the bare base the probes keep their order.

    Args:
        manifest: the artifact's.
        names: the objectives that are checked, or ``LOGPROB``.
    """
    told = [0.0] * len(manifest.probes)
    for name in names:
        weight = max(list_checked_weights(manifest.probes, name), default=SERVED)
        effects = [
            0.0 if bare is None or seen is None else abs(seen - bare)
            for probe in manifest.probes
            for seen, bare in [(get_reading(probe, name, weight), get_reading(probe, name, BARE))]
        ]
        largest = max(effects, default=0.0) or 1.0
        told = [max(one, effect / largest) for one, effect in zip(told, effects, strict=True)]
    return sorted(range(len(told)), key=lambda index: -told[index])


def _list_readings(probes: Sequence[Probe], name: str, weight: float) -> list[float]:
    found = (get_reading(probe, name, weight) for probe in probes)
    return [value for value in found if value is not None]


def compute_range(values: Sequence[float]) -> float:
    """The largest value less the smallest."""
    return max(values) - min(values)


def compute_difference(values: Sequence[float], others: Sequence[float]) -> float:
    """The largest difference of two lists of readings; infinite where one of them is not finite."""
    apart = [abs(one - other) for one, other in zip(values, others, strict=True)]
    return max(each if math.isfinite(each) else math.inf for each in apart)
