"""Probes of a policy whose data have only prompts: answers that it writes itself after its training."""

from typing import Any

from tureen_core.inputs import render_probe
from tureen_core.manifest import Probe
from tureen_core.template import Renderer
from tureen_train.config import RecipeError, Sampling
from tureen_train.networks.reward_reader import ignore_progress
from tureen_train.policies.rollouts.contract import Prompt
from tureen_train.policies.rollouts.prompts import collect_prompts
from tureen_train.policies.rollouts.sampler import ProcessSampler
from tureen_train.records.run_data import RunData

LONGEST = 48  # tokens of an answer
TRIES = 4  # prompts that are answered for each probe, since an answer may be empty


def write_probe_answers(model: Any, renderer: Renderer, data: RunData, count: int) -> list[Probe]:
    """Let a policy answer prompts, held-out ones first. Every rank must call it.

    The answers are drawn at a temperature of 1, since the likeliest ones would all have about the same likelihood.

    Args:
        model: the trained model, unwrapped.
        count: of the probes.

    Raises:
        RecipeError: no prompt fits into ``policy.max_length`` with an answer, or all answers are empty.
    """
    records = [*(record for records in data.eval.values() for record in records), *data.train]
    longest = renderer.reading.max_length // 2
    found = collect_prompts(records, renderer, longest)
    prompts = found.prompts[: count * TRIES]
    sampling = Sampling(count=1, min_tokens=2, max_tokens=min(LONGEST, longest))
    written = ProcessSampler(model, renderer).sample(prompts, sampling, 0, ignore_progress)
    answered = [(prompt, sample.text) for prompt, (sample,) in zip(prompts, written, strict=True)]
    fit = [probe for each in answered if (probe := _make_probe(renderer, *each)) is not None][:count]
    if not fit:
        raise RecipeError("policy.max_length: no prompt fits with an answer of the policy; raise it")
    return fit


def _make_probe(renderer: Renderer, prompt: Prompt, text: str) -> Probe | None:
    """Make a probe of an answer, or of its beginning where the whole is too long. None if nothing fits."""
    while text.strip():
        messages = [*map(dict, prompt.messages), {"role": "assistant", "content": text}]
        probe = Probe(messages=messages, **prompt.template_arguments)
        if not render_probe(renderer, "conversation", probe).truncated:
            return probe
        text = text[: len(text) // 2]
    return None
