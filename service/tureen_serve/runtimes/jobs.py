"""Checks of a generation job that are the same for every runtime."""

from tureen.errors import Unprocessable
from tureen_serve.runtimes.contract import GenerationJob


def check_job(job: GenerationJob, context: int, vocabulary: int, least: int = 0) -> None:
    """Check that a model can run a job.

    Args:
        context: the largest number of tokens of a prompt and its text together.
        vocabulary: the number of token ids.
        least: how many tokens the runtime writes at least.

    Raises:
        Unprocessable: the prompt is empty or has a token that the model does not have; prompt and text are too long for
            the model; or ``logit_bias`` or ``stop_token_ids`` names a token that it does not have.
    """
    if not job.ids:
        raise Unprocessable("the prompt is empty: send some text to continue", param="prompt")
    if not 0 <= min(job.ids) <= max(job.ids) < vocabulary:
        strange = next(each for each in job.ids if not 0 <= each < vocabulary)
        message = f"{strange} is not a token of this model: use ids from 0 to {vocabulary - 1}"
        raise Unprocessable(message, param="prompt", code="invalid_token_ids")
    if len(job.ids) + max(job.sampling.max_tokens, least) > context:
        limit = f"this model's maximum context length is {context} tokens"
        asked = f"the prompt has {len(job.ids)} and max_tokens is {job.sampling.max_tokens}"
        message = f"the prompt is too long: {limit}, {asked}; shorten the prompt or lower max_tokens"
        raise Unprocessable(message, param="max_tokens", code="context_length_exceeded")
    biased = [(token, f"logit_bias.{token}") for token, _ in job.sampling.logit_bias]
    for token, param in (*biased, *((token, "stop_token_ids") for token in job.sampling.stop_tokens)):
        if not 0 <= token < vocabulary:
            message = f"{token} is not a token of this model: use ids from 0 to {vocabulary - 1}"
            raise Unprocessable(message, param=param)
