"""Probes of a policy, chosen among the answers of its data."""

import math

from tureen_core.inputs import render_probe
from tureen_core.manifest import Probe
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.records.rendering import make_probe
from tureen_train.records.run_data import RunData


def choose_probes(data: RunData, renderer: Renderer, count: int) -> list[Probe]:
    """Choose prompts with their best answers as probes: held-out ones first, and none that would be truncated.

    Returns:
        None at all if no record has an answer.

    Raises:
        RecipeError: no prompt with its best answer fits into ``policy.max_length``.
    """
    fit: list[Probe] = []
    records = [*(record for records in data.eval.values() for record in records), *data.train]
    answered = [record for record in records if record.answers]
    for record in answered:
        best = max(range(len(record.scores)), key=lambda n: _rank(record.scores[n]))
        probe = make_probe(record, record.answers[best])
        if record.prompt and not render_probe(renderer, "conversation", probe).truncated:
            fit.append(probe)
        if len(fit) == count:
            return fit
    if answered and not fit:
        raise RecipeError("policy.max_length: no prompt fits with its best answer; raise it")
    return fit


def _rank(score: float) -> float:
    return -math.inf if math.isnan(score) else score
