"""The proof that serving gives what training saw: an artifact's probes, run again where it will serve."""

from collections.abc import Iterable
from dataclasses import dataclass

from tureen.errors import TureenError
from tureen_core.artifact import Artifact, Probe
from tureen_core.gate import select_prompt_ids
from tureen_core.inputs import render_probe
from tureen_core.reading import Rendered
from tureen_serve.runtimes.catalogue import Family, Reward
from tureen_serve.runtimes.contract import PolicyRuntime, Row, Scorer
from tureen_serve.runtimes.readout import weigh_rewards


@dataclass(frozen=True)
class Proof:
    """One probe under one objective: what training saw, what this runtime gives, and how far apart they may be."""

    artifact: str
    probe: int
    objective: str
    expected: float
    found: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether they agree; a value that is not a number does not."""
        return abs(self.found - self.expected) <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.artifact}, probe {self.probe}, {self.objective}: {self.found:.6g} here, {self.expected:.6g} "
            f"in training, ±{self.tolerance:g} allowed"
        )


def prove_reward(reward: Reward, scorer: Scorer, dtype: str, most: int | None = None) -> list[Proof]:
    """Score the probes of one artifact again.

    Args:
        reward: one of its objectives; all are proven.
        dtype: what the runtime computes in; names the tolerance.
        most: how many probes; all by default.
    """
    artifact = reward.artifact
    proofs = []
    for number, probe in _probes(artifact, most):
        values = _values(artifact, render_probe(reward.renderer, reward.input, probe), scorer)
        for objective in artifact.manifest.objectives:
            if objective.name in probe.scores:
                seen, value = probe.scores[objective.name], values[objective.column]
                proofs.append(Proof(artifact.name, number, objective.name, seen, value, _tolerance(artifact, dtype)))
    return proofs


def _values(artifact: Artifact, text: Rendered, scorer: Scorer) -> list[float]:
    """What a scorer makes of a text: the head's columns and, of a gated model, what the gate makes of them."""
    blend = ((artifact.name, 1.0),)
    values = _run(scorer, Row(tuple(text.ids), blend))
    if artifact.manifest.gated:
        values.append(weigh_rewards(values, _run(scorer, Row(tuple(select_prompt_ids(text)), blend, head="gate"))))
    return values


def _run(scorer: Scorer, row: Row) -> list[float]:
    (found,) = scorer.run([row])
    if isinstance(found, TureenError):
        raise found
    return list(found.values)


def prove_experts(family: Family, runtime: PolicyRuntime, dtype: str, most: int | None = None) -> list[Proof]:
    """Read each expert's probes again: mean log-probability, nats a token, of the last message and its end mark."""
    proofs = []
    for expert, artifact in family.experts.items():
        for number, probe in _probes(artifact, most):
            if probe.logprob is None:
                continue
            ids = family.renderer.render_conversation(probe.messages).ids
            start = len(family.renderer.tokenize_prompt(probe.messages[:-1]))
            likely = runtime.likelihood(ids, start, ((expert, 1.0),))
            mean = sum(likely) / len(likely)
            proofs.append(Proof(artifact.name, number, expert, probe.logprob, mean, _tolerance(artifact, dtype)))
    return proofs


def _probes(artifact: Artifact, most: int | None) -> Iterable[tuple[int, Probe]]:
    return enumerate(artifact.manifest.probes[:most])


def _tolerance(artifact: Artifact, dtype: str) -> float:
    return artifact.manifest.tolerance.get(dtype, 0.0)
