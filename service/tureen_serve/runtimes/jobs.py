"""Checks of a generation job that are the same for every runtime."""

from tureen.errors import Unprocessable
from tureen_serve.runtimes.contract import GenerationJob


def check_job(job: GenerationJob, context: int, vocabulary: int) -> None:
    """Check that a model can run a job.

    Args:
        context: the largest number of tokens of a prompt and its text together.
        vocabulary: the number of token ids.

    Raises:
        Unprocessable: the prompt is empty; prompt and text are too long for the model; or ``logit_bias`` names a token
            that the model does not have.
    """
    if not job.ids:
        raise Unprocessable("the prompt is empty: send some text to continue", param="prompt")
    if len(job.ids) + job.sampling.max_tokens > context:
        limit = f"this model's maximum context length is {context} tokens"
        asked = f"the prompt has {len(job.ids)} and max_tokens is {job.sampling.max_tokens}"
        message = f"the prompt is too long: {limit}, {asked}; shorten the prompt or lower max_tokens"
        raise Unprocessable(message, param="max_tokens", code="context_length_exceeded")
    for token, _ in job.sampling.logit_bias:
        if not 0 <= token < vocabulary:
            message = f"{token} is not a token of this model: use ids from 0 to {vocabulary - 1}"
            raise Unprocessable(message, param=f"logit_bias.{token}")
