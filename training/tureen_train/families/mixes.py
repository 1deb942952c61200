"""The mixes at which a family is measured. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tureen_core.preference import format_weights

BASE = "base"
Mix = Mapping[str, float]


@dataclass(frozen=True)
class Sweep:
    """The mixes from one expert to another.

    Attributes:
        first: the expert with the weight 1 − w.
        second: the expert with the weight w.
        weights: the values of w.
    """

    first: str
    second: str
    weights: tuple[float, ...]

    @property
    def mixes(self) -> list[Mix]:
        """The mix at each weight."""
        return [mix_pair(self.first, self.second, weight) for weight in self.weights]


def mix_pair(first: str, second: str, weight: float) -> Mix:
    """Mix two experts; one without a weight is left out, so that the ends of a sweep are the experts alone."""
    pair = {first: round(1 - weight, 6), second: round(weight, 6)}
    return {name: share for name, share in pair.items() if share}


def plan_sweeps(pairs: Sequence[tuple[str, str]], steps: int) -> list[Sweep]:
    """Plan a sweep of ``steps`` equal steps for each pair; none if ``steps`` is 0."""
    weights = tuple(round(number / (steps - 1), 6) for number in range(steps)) if steps else ()
    return [Sweep(first, second, weights) for first, second in pairs] if steps else []


def plan_mixes(names: Sequence[str], sweeps: Sequence[Sweep]) -> list[Mix]:
    """List all mixes once: the bare base, each expert alone, and those of the sweeps."""
    every: list[Mix] = [{}, *({name: 1.0} for name in names), *(mix for sweep in sweeps for mix in sweep.mixes)]
    return list({name_mix(mix): mix for mix in every}.values())


def name_mix(mix: Mix) -> str:
    """The name of a mix in files and tables: ``a=0.7+b=0.3``, or ``base``."""
    return format_weights(mix).replace(",", "+") if mix else BASE
