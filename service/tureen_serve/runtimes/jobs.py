"""What every runtime asks of a job before it runs."""

from tureen.errors import Unprocessable
from tureen_serve.runtimes.contract import GenerationJob


def check_job(job: GenerationJob, context: int, vocabulary: int) -> None:
    """Refuse a job that cannot run on a model.

    Args:
        job: what is asked.
        context: the most tokens of prompt and text together.
        vocabulary: how many token ids there are.

    Raises:
        Unprocessable: no prompt, too long for the model, a biased token that is none.
    """
    if not job.ids:
        raise Unprocessable("the prompt has no tokens to continue", param="prompt")
    if len(job.ids) + job.sampling.max_tokens > context:
        limit = f"this model's maximum context length is {context} tokens"
        asked = f"the prompt has {len(job.ids)} and the answer needs {job.sampling.max_tokens}"
        message = f"the prompt is too long: {limit}, {asked}; shorten the prompt or lower max_tokens"
        raise Unprocessable(message, param="max_tokens", code="context_length_exceeded")
    for token, _ in job.sampling.logit_bias:
        if not 0 <= token < vocabulary:
            raise Unprocessable(f"{token} is no token of this model", param=f"logit_bias.{token}")
