"""The proof that serving gives what training saw: an artifact's probes, run again where it will serve."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tureen.errors import TureenError
from tureen_core.artifact import Artifact
from tureen_core.gate import select_prompt_ids
from tureen_core.inputs import render_expert_probe, render_probe
from tureen_core.reading import Rendered
from tureen_core.template import Renderer
from tureen_core.tolerance import LOGPROB, SERVED, compute_tolerance, get_reading, list_checked_weights, rank_probes
from tureen_serve.runtimes.catalogue import Backbone, Family, Reward
from tureen_serve.runtimes.contract import PolicyRuntime, Row, Scorer
from tureen_serve.runtimes.readout import weigh_rewards
from tureen_serve.runtimes.sources import LoadError

LOG = logging.getLogger(__name__)
PROBES_AT_START = 1


@dataclass(frozen=True)
class Proof:
    """One probe under one objective: what training saw, what this runtime gives, and how far apart they may be.

    ``weight`` is the adapter's: 1 as it is served, more where its effect is shown by a larger one. ``origin``
    says where the expected number is from.
    """

    artifact: str
    probe: int
    objective: str
    expected: float
    found: float
    tolerance: float
    weight: float = SERVED
    origin: str = "in training"

    @property
    def holds(self) -> bool:
        """Whether they agree; a value that is not a number does not."""
        return abs(self.found - self.expected) <= self.tolerance

    def __str__(self) -> str:
        name = self.objective if self.weight == SERVED else f"{self.objective} at {self.weight:g} times the adapter"
        return (
            f"{self.artifact}, probe {self.probe}, {name}: {self.found:.6g} here, {self.expected:.6g} "
            f"{self.origin}, ±{self.tolerance:g} allowed"
        )


def prove_reward(reward: Reward, scorer: Scorer, dtype: str, most: int | None = None) -> list[Proof]:
    """Score the probes of one artifact again.

    Args:
        reward: one of its objectives; all are proven.
        dtype: what the runtime computes in; names the tolerance.
        most: how many probes, the most telling first; all by default.
    """
    artifact, manifest = reward.artifact, reward.artifact.manifest
    if artifact.plain is not None and not manifest.gated:
        return _prove_plain(reward, scorer, dtype)
    weights = {each.name: list_checked_weights(manifest.probes, each.name) for each in manifest.objectives}
    proofs = []
    for number in sorted(rank_probes(manifest, list(weights))[:most]):
        probe = manifest.probes[number]
        text = render_probe(reward.renderer, reward.input, probe)
        for weight in sorted({weight for found in weights.values() for weight in found}):
            values = _values(reward, text, scorer, weight)
            for objective in manifest.objectives:
                seen = get_reading(probe, objective.name, weight)
                if seen is not None:
                    allowed = compute_tolerance(manifest, objective.name, dtype, weight)
                    value = values[objective.column]
                    proofs.append(Proof(artifact.name, number, objective.name, seen, value, allowed, weight))
    return proofs


def prove_backbone(backbone: Backbone, dtype: str) -> None:
    """Score the first probes of each artifact of a backbone that was just loaded. If one differs, it is closed.

    Raises:
        LoadError: a probe differs.
    """
    try:
        for reward in {each.artifact.name: each for each in backbone.rewards}.values():
            proofs = prove_reward(reward, backbone.scorer, dtype, PROBES_AT_START)
            failed = [str(proof) for proof in proofs if not proof.holds]
            if failed:
                raise LoadError(f"the score of a probe differs: {failed[0]}")
            log_difference(reward, proofs)
    except BaseException:
        backbone.close()
        raise


def log_difference(reward: Reward, proofs: Sequence[Proof]) -> None:
    """Log the form of a plain model, and how far it is from what its own library gives."""
    if reward.artifact.plain is not None:
        farthest = max(abs(proof.found - proof.expected) for proof in proofs)
        told = (reward.artifact.name, reward.artifact.plain.form, farthest, len(proofs))
        LOG.info("%s has the form %s; it differs by at most %.2g from its own library, in %d scores", *told)


def _prove_plain(reward: Reward, scorer: Scorer, dtype: str) -> list[Proof]:
    """Compare all probes of a plain model, scored in one batch, with what its own library gave to each alone.

    So a model whose numbers change in a batch is not served.
    """
    artifact, manifest = reward.artifact, reward.artifact.manifest
    blend = ((artifact.name, SERVED),)
    texts = [render_probe(reward.renderer, reward.input, probe) for probe in manifest.probes]
    batch = scorer.run([Row(tuple(text.ids), blend) for text in texts], fresh=True)
    proofs = []
    for number, (probe, found) in enumerate(zip(manifest.probes, batch, strict=True)):
        if isinstance(found, TureenError):
            raise found
        for objective in manifest.objectives:
            allowed = compute_tolerance(manifest, objective.name, dtype, SERVED)
            seen, value = probe.scores[objective.name], found.values[objective.column]
            origin = "by its own library"
            proofs.append(Proof(artifact.name, number, objective.name, seen, value, allowed, SERVED, origin))
    return proofs


def _values(reward: Reward, text: Rendered, scorer: Scorer, weight: float) -> list[float]:
    """Score a text with the adapter at ``weight`` and the head at 1.

    Returns:
        The head's columns and, of a gated model, the overall reward that the gate makes of them.
    """
    artifact = reward.artifact
    blend = ((artifact.name, weight),)
    values = [each / weight for each in _run(scorer, Row(tuple(text.ids), blend))]
    if artifact.manifest.gated:
        row = Row(tuple(select_prompt_ids(text, reward.gate_opening)), blend, head="gate")
        values.append(weigh_rewards(values, [each / weight for each in _run(scorer, row)]))
    return values


def _run(scorer: Scorer, row: Row) -> list[float]:
    (found,) = scorer.run([row])
    if isinstance(found, TureenError):
        raise found
    return list(found.values)


def prove_family(family: Family, runtime: PolicyRuntime, dtype: str, most: int | None = None) -> list[Proof]:
    """Read the probes of each expert and of the policy again.

    A probe's number is the mean log-probability, in nats per token, of its last message and its end mark.
    """
    if family.policy is not None and not family.experts:
        return prove_policy(family.policy, family, runtime, dtype, most)
    assert family.renderer is not None
    tokenizer = family.renderer.tokenizer
    return [
        proof
        for expert, artifact in family.experts.items()
        for proof in _prove_logprobs(artifact, tokenizer, runtime, dtype, expert, most)
    ]


def prove_policy(
    artifact: Artifact, family: Family, runtime: PolicyRuntime, dtype: str, most: int | None = None
) -> list[Proof]:
    """Read the probes of a policy of whole weights again, which is the base of a family without experts."""
    assert family.renderer is not None
    return _prove_logprobs(artifact, family.renderer.tokenizer, runtime, dtype, None, most)


def _prove_logprobs(
    artifact: Artifact, tokenizer: Any, runtime: PolicyRuntime, dtype: str, expert: str | None, most: int | None
) -> list[Proof]:
    """Read an artifact's probes by the family's runtime, with an expert at several weights or by the bare base."""
    proofs, manifest = [], artifact.manifest
    renderer = Renderer(tokenizer, manifest.reading)  # as its own training read the probes
    for number in sorted(rank_probes(manifest, [LOGPROB])[:most]):
        probe = manifest.probes[number]
        ids, start = render_expert_probe(renderer, probe)
        for weight in list_checked_weights(manifest.probes, LOGPROB):
            seen = get_reading(probe, LOGPROB, weight)
            if seen is not None:
                likely = runtime.likelihood(ids, start, ((expert, weight),) if expert else ())
                allowed = compute_tolerance(manifest, LOGPROB, dtype, weight)
                objective = expert or manifest.objectives[0].name
                proofs.append(Proof(artifact.name, number, objective, seen, fmean(likely), allowed, weight))
    return proofs
