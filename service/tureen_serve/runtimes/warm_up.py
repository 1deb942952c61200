"""Measure how fast loaded models are, before the first request asks. It takes about a second for each.

A first batch lets libraries prepare what they prepare once. A second one tells how large a batch may be that takes
:data:`SECONDS`, and that one is measured, since small batches are slow.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from tureen.errors import TureenError
from tureen_core.inputs import render_probe
from tureen_serve.runtimes.catalogue import Backbone, LoadedModels, Policy
from tureen_serve.runtimes.contract import GenerationJob, Generator, Row, Stepper
from tureen_serve.runtimes.sampling_fields import Sampling

LOG = logging.getLogger(__name__)
SECONDS = 0.5
FIRST_TOKENS = 256
PROMPT = [{"role": "user", "content": "Hello"}]
TEXTS = 4, 32  # at first, and at most
STEPS = 3


def measure_speeds(loaded: LoadedModels) -> LoadedModels:
    """Measure the speeds of all models."""
    backbones = tuple(replace(each, speed=measure_backbone(each)) for each in loaded.backbones)
    policies = tuple(replace(each, speed=measure_policy(each)) for each in loaded.policies)
    return replace(loaded, backbones=backbones, policies=policies)


def measure_backbone(backbone: Backbone) -> float:
    """Measure the tokens that a backbone scores in a second; 0 if it cannot be measured."""
    row = _make_row(backbone)
    if row is None:
        return 0.0
    limits = backbone.scorer.limits
    most = max(1, min(limits.batch_rows, limits.batch_tokens // len(row.ids)))
    count = min(max(1, FIRST_TOKENS // len(row.ids)), most)
    return _measure(backbone.name, lambda rows: _score(backbone, row, rows), count, most)


def measure_policy(policy: Policy) -> float:
    """Measure the tokens that a family writes in a second; 0 if it cannot be measured, as with vLLM's own batches."""
    stepper = policy.runtime
    if isinstance(stepper, Generator):
        return 0.0
    return _measure(policy.family.name, lambda texts: _write(stepper, policy, texts), *TEXTS)


def _measure(name: str, run: Callable[[int], tuple[int, float]], count: int, most: int) -> float:
    """Run a batch of ``count`` twice, and then the largest one of at most ``most`` that takes :data:`SECONDS`.

    Args:
        run: runs a batch of a size, and returns its tokens and seconds.
    """
    try:
        run(count)
        tokens, seconds = run(count)
        best = tokens / seconds
        larger = min(most, int(SECONDS / seconds * count))
        if larger > count:
            tokens, seconds = run(larger)
            best = max(best, tokens / seconds)
    except Exception as error:  # the models may still run; what they cannot do, requests will be told
        LOG.warning("the speed of %s could not be measured: %s", name, error)
        return 0.0
    LOG.info("%s: about %.0f tokens a second", name, best)
    return best


def _make_row(backbone: Backbone) -> Row | None:
    """Make a row of the first reward's first probe; None if it has no probe."""
    reward = backbone.rewards[0]
    probe = next(iter(reward.artifact.manifest.probes), None)
    if probe is None:
        return None
    text = render_probe(reward.renderer, reward.input, probe)
    return Row(tuple(text.ids), ((reward.artifact.name, 1.0),))


def _score(backbone: Backbone, row: Row, rows: int) -> tuple[int, float]:
    began = time.perf_counter()
    found = backbone.scorer.run([row] * rows, fresh=True)
    if isinstance(found[0], TureenError):
        raise found[0]
    return rows * len(row.ids), time.perf_counter() - began


def _write(stepper: Stepper, policy: Policy, texts: int) -> tuple[int, float]:
    """Write :data:`STEPS` tokens of each text. The first step, which reads the prompts, is not measured."""
    assert policy.family.renderer is not None
    ids = tuple(policy.family.renderer.render_prompt(PROMPT).ids)
    weights = tuple((name, 1.0) for name in sorted(policy.family.experts)[:1])
    job = GenerationJob(ids, Sampling(max_tokens=STEPS + 1), weights)
    stepper.check(job)
    keys = [object() for _ in range(texts)]
    for key in keys:
        stepper.add(key, job)
    try:
        stepper.step()
        began = time.perf_counter()
        tokens = sum(len(stepper.step()) for _ in range(STEPS))
        return tokens, time.perf_counter() - began
    finally:
        for key in keys:
            stepper.drop(key)
