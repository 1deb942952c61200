"""The policy, its critic and its reference as one module, so that one engine of accelerate or DeepSpeed holds all."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from trl.trainer.utils import disable_dropout_in_model

from tureen_train.networks.answer_batch import AnswerBatch
from tureen_train.policies.ppo.critic import Critic
from tureen_train.policies.reference import Reference

Role = Literal["learner", "watched", "reference"]


class Figures(NamedTuple):
    """Figures of the N answer tokens of a batch, ``[N]`` each in float32.

    Attributes:
        logprobs: log π.
        values: by the critic, of the text before each token; 0 from the reference.
        entropies: of the distribution of each token, without gradient; 0 where they were not asked for.
    """

    logprobs: Tensor
    values: Tensor
    entropies: Tensor


class ActorCritic(nn.Module):
    """Computes figures of answers. Dropout is off, in training too, so that equal weights give equal figures.

    Args:
        policy: of a class of :func:`tureen_train.networks.policy_model.make_policy_class`, or a PEFT model on one.
        critic: values the texts.
        reference: see :func:`tureen_train.policies.reference.make_reference`.
        temperature: the logits are divided by it, as the sampler's are.
    """

    def __init__(
        self,
        policy: Any,
        critic: Critic,
        reference: Reference,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.reference = policy, critic, reference
        self.temperature = temperature
        disable_dropout_in_model(self)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.critic.shift.device

    def list_models(self) -> list[Any]:
        """The language models in it."""
        return [self.policy, self.critic.model, *([self.reference] if isinstance(self.reference, nn.Module) else [])]

    def forward(self, answers: AnswerBatch | None = None, role: Role = "learner", **inputs: Any) -> Any:
        """Compute the :class:`Figures` of answers. Without them, run the policy on ``inputs`` as the library does.

        Args:
            role: ``learner`` gives log-probabilities and values, ``watched`` entropies too, ``reference`` only the
                reference's log-probabilities.
        """
        if answers is None:
            return self.policy(**inputs)
        if role == "reference":
            return self._read_reference(answers)
        read = self.policy(answers=answers, temperature=self.temperature, with_entropies=role == "watched")
        entropies = torch.zeros_like(read.logprobs) if read.entropies is None else read.entropies.detach()
        return Figures(read.logprobs, self.critic(answers), entropies)

    def _read_reference(self, answers: AnswerBatch) -> Figures:
        if isinstance(self.reference, nn.Module):
            found = self.reference(answers=answers, temperature=self.temperature).logprobs
        else:
            with self.reference():
                found = self.policy(answers=answers, temperature=self.temperature).logprobs
        return Figures(found, torch.zeros_like(found), torch.zeros_like(found))
