"""Write answers by a server: a running Tureen, or another server with OpenAI's ``/v1/chat/completions``.

The server applies its own chat template, so the answers have no ids and no log-probabilities. The seed of a request
depends on the run's seed and on the prompt. Whether equal seeds give equal answers is the server's to say; Tureen's do.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tureen import Client
from tureen.adapters.options import PATIENT
from tureen.errors import ServerFault
from tureen.openai_wire import ChatChoice
from tureen.retry import Retries
from tureen_train.config import RecipeError, Sampling
from tureen_train.policies.rollouts.contract import Done, Prompt, Sample

MOST = 64  # choices that one request may ask for
SEEDS = 2**63 - MOST


class ServerSampler:
    """Asks a server for the answers, a few requests at a time.

    A request that fails is sent again for about two minutes. An error that stays ends the run: a policy's answer is
    never made up. The key is that of :mod:`tureen.settings`.

    Args:
        url: the server's address.
        model: the model's name there; None for the server's only one.
        preferences: the weights of a Tureen family's experts.
        timeout: seconds that one request may wait.
        retries: how often a request is sent again.
    """

    def __init__(
        self,
        url: str,
        model: str | None,
        preferences: Mapping[str, float] | None = None,
        timeout: float = 600.0,
        retries: Retries = PATIENT,
    ) -> None:
        self.url = url
        self.model = model
        self.preferences = preferences
        self.timeout = timeout
        self.retries = retries

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int, done: Done) -> list[list[Sample]]:
        """Write ``sampling.count`` answers to each prompt. See the contract.

        Raises:
            RecipeError: a prompt has tools or arguments of the chat template, which are not sent.
            TureenError: the server cannot be reached, refuses a request, or fails.
        """
        for prompt in prompts:
            if prompt.template_arguments:
                names = ", ".join(prompt.template_arguments)
                raise RecipeError(f"sampling.engine: {prompt.id} has {names}, which no server is sent; use process")
        threads = max(1, sampling.batch // sampling.count)
        found = []
        with (
            Client(self.url, timeout=self.timeout, retries=self.retries) as client,
            ThreadPoolExecutor(threads) as pool,
        ):
            try:
                for samples in pool.map(lambda prompt: self._ask(client, prompt, sampling, seed), prompts):
                    found.append(samples)
                    done(len(samples))
            finally:
                pool.shutdown(cancel_futures=True)
        return found

    def _ask(self, client: Client, prompt: Prompt, sampling: Sampling, seed: int) -> list[Sample]:
        samples: list[Sample] = []
        while len(samples) < sampling.count:
            wanted = min(MOST, sampling.count - len(samples))
            reply = client.chat(
                [dict(turn) for turn in prompt.messages],
                model=self.model,
                preferences=self.preferences,
                n=wanted,
                seed=make_seed(seed, prompt.id, len(samples)),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
            )
            if len(reply.choices) != wanted:
                raise ServerFault(
                    f"{self.url} gave {len(reply.choices)} answers where {wanted} were asked for",
                    code="unreadable_reply",
                )
            samples += [_read(prompt, len(samples) + at, choice) for at, choice in enumerate(reply.choices)]
        return samples


def _read(prompt: Prompt, number: int, choice: ChatChoice) -> Sample:
    return Sample(prompt.id, number, choice.text, finished=choice.finish_reason != "length")


def make_seed(seed: int, prompt: str, first: int) -> int:
    """The seed of a request. Tureen's texts take consecutive seeds from it."""
    digest = hashlib.sha256(f"{seed} {first} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % SEEDS
