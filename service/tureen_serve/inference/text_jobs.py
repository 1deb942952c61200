"""Make a text of a prompt a job for the lane that will write it."""

from collections.abc import AsyncGenerator, Mapping

from tureen_core.soup import Semantics
from tureen_serve.inference.registry import TextLane
from tureen_serve.inference.upstream_lane import UpstreamLane
from tureen_serve.runtimes.contract import GenerationJob, TextDelta
from tureen_serve.runtimes.sampling_fields import Sampling
from tureen_serve.runtimes.upstream_contract import Prompt, SpokenPrompt, UpstreamJob


def start_text(
    lane: TextLane, prompt: Prompt, sampling: Sampling, weights: Mapping[str, float], semantics: Semantics
) -> AsyncGenerator[TextDelta]:
    """Start one text. An upstream reads prompts as they are spoken, and all others token ids."""
    if isinstance(lane, UpstreamLane):
        assert isinstance(prompt, SpokenPrompt)
        return lane.stream(UpstreamJob(prompt, sampling))
    assert not isinstance(prompt, SpokenPrompt)
    return lane.stream(GenerationJob(tuple(prompt), sampling, tuple(sorted(weights.items())), semantics))
