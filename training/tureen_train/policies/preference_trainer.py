"""Direct preference optimisation on ``transformers.Trainer``, against a reference that is read once at the start.

The reference is the policy as the run starts. Its log-probabilities are computed before the first step and kept as
columns of the data and in a file, so that there is no second model, and a run that goes on has the same reference. That
is so with an adapter, with whole weights and with sharded ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from tureen_train.config import RecipeError
from tureen_train.config.policies import DpoPolicy
from tureen_train.config.ranking import RandomCap
from tureen_train.measures.constraints import draw_caps
from tureen_train.measures.metrics import Array, compute_accuracy
from tureen_train.networks.answer_batch import Layout
from tureen_train.policies.losses import compute_cap_losses, compute_preference_losses
from tureen_train.policies.preferences import Preferences, collate_preferences, set_references
from tureen_train.policies.token_logprobs import compute_token_logprobs
from tureen_train.runs.counted_trainer import CountedTrainer, Outcome
from tureen_train.runs.filled_set import ROWS, fill_rows

REFERENCES = "references.safetensors"
TRAIN = "train"


class PreferenceLearner:
    """The loss of pairs, and the figures of evaluated pairs; the predictions are log π ``[B, 2]`` of their answers.

    The loss is the mean over pairs of the preference loss, and in training of the cap loss where there is a constraint,
    plus ``sft`` times the mean negative log-likelihood of the chosen answers' tokens.
    """

    labels = ("references", "lengths")

    def __init__(self, policy: DpoPolicy) -> None:
        self.policy = policy

    def counts(self, batch: Mapping[str, Any]) -> Tensor:
        """The numbers of pairs and of the chosen answers' tokens, ``[2]``."""
        lengths = batch["lengths"][:, 0]
        return torch.stack([torch.ones_like(lengths).sum(), lengths.sum()])

    def loss(self, model: Any, batch: Mapping[str, Any], counts: Tensor) -> Outcome:
        """Compute the loss of one batch."""
        logprobs = compute_answer_logprobs(model, batch)
        rewards = self.policy.beta * (logprobs - batch["references"].to(logprobs))
        gaps = rewards[:, 0] - rewards[:, 1]
        pairs, tokens = counts.clamp(min=1)
        terms = {"preference": compute_preference_losses(gaps, self.policy.label_smoothing).sum() / pairs}
        if model.training and self.policy.constraint is not None:
            terms["constraint"] = compute_cap_losses(gaps, self._caps(batch), self.policy.label_smoothing).sum() / pairs
        if self.policy.sft:
            terms["sft"] = -self.policy.sft * logprobs[:, 0].sum() / tokens
        figures = {
            "accuracy": ((gaps > 0).float() + (gaps == 0).float() / 2).sum() / pairs,
            "margin": gaps.sum() / pairs,
            "reward_chosen": rewards[:, 0].sum() / pairs,
            "reward_rejected": rewards[:, 1].sum() / pairs,
        }
        return Outcome(
            torch.stack(list(terms.values())).sum(),
            logprobs.detach(),
            {name: term.detach() for name, term in terms.items()},
            {name: figure.detach() for name, figure in figures.items()},
        )

    def _caps(self, batch: Mapping[str, Any]) -> Tensor:
        constraint, caps = self.policy.constraint, batch["caps"]
        assert isinstance(caps, Tensor)
        return draw_caps(constraint, len(caps)).to(caps) if isinstance(constraint, RandomCap) else caps

    def compute_metrics(self, predictions: Array, labels: Sequence[Array]) -> dict[str, float]:
        """Compute the figures of one file in float64.

        ``loss`` has no constraint, as in PCRM's evaluation; ``accuracy`` counts equal rewards ½; ``margin`` is the mean
        gap of the implicit rewards, whose means are ``reward_chosen`` and ``reward_rejected``.
        """
        logprobs, references, lengths = (torch.as_tensor(each).double() for each in (predictions, *labels))
        rewards = self.policy.beta * (logprobs - references)
        gaps = rewards[:, 0] - rewards[:, 1]
        loss = compute_preference_losses(gaps, self.policy.label_smoothing).mean()
        loss = loss - self.policy.sft * logprobs[:, 0].sum() / lengths[:, 0].sum()
        return {
            "loss": float(loss),
            "accuracy": compute_accuracy(gaps.numpy()),
            "margin": float(gaps.mean()),
            "reward_chosen": float(rewards[:, 0].mean()),
            "reward_rejected": float(rewards[:, 1].mean()),
            "pairs": float(len(gaps)),
        }


def compute_answer_logprobs(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Compute log π of the answers of a batch of pairs, ``[B, 2]``: of the chosen ones and of the rejected ones."""
    sums = compute_token_logprobs(model, batch["answers"]).logprobs.sum(1)
    return sums.view(2, -1).T


class PreferenceTrainer(CountedTrainer):
    """Trains a policy on pairs.

    Args:
        policy: the recipe's settings of DPO.
        layout: how the answers of a batch run, see :func:`tureen_train.networks.answer_batch.lay_out_answers`.
        pad: the id of padding.
        references: the file of the reference's log-probabilities. A new run writes it before its first step.
        known: whether that file is there already, as where the run goes on from a checkpoint; then it is read.
    """

    def __init__(
        self,
        *,
        args: TrainingArguments,
        policy: DpoPolicy,
        layout: Layout,
        pad: int,
        references: Path,
        known: bool,
        **kwargs: Any,
    ) -> None:
        collate = partial(collate_preferences, pad=pad, layout=layout)
        super().__init__(args=args, method=PreferenceLearner(policy), data_collator=collate, **kwargs)
        self._file, self._known = references, known
        self.add_callback(BeforeFirstStep(self._prepare_references))

    def write_references(self) -> None:
        """Compute the reference's log-probabilities of all pairs by the current policy, and write the file.

        Every rank must call it. Before the training it needs a model that is not sharded.
        """
        if self.model_wrapped is self.model:
            self.model.to(self.args.device)
        sets = self._sets
        found = {name: self._compute_references(each) for name, each in sets.items()}
        if self.is_world_process_zero():
            write_references(self._file, found, sets)
        set_references(sets.values(), [found[name] for name in sets])
        self.accelerator.wait_for_everyone()

    @property
    def _sets(self) -> dict[str, Preferences]:
        held = {f"eval/{name}": each for name, each in (self.eval_dataset or {}).items()}
        return {TRAIN: self.train_dataset, **held}

    def _prepare_references(self) -> None:
        """Compute the reference's log-probabilities of all pairs, or read them if they are known."""
        if not self._known:
            self.write_references()
            return
        sets = self._sets
        found = read_references(self._file, sets)
        set_references(sets.values(), [found[name] for name in sets])

    @torch.no_grad()
    def _compute_references(self, pairs: Preferences) -> Tensor:
        """Compute log π ``[P, 2]`` of pairs by the current policy. Every rank must call it."""
        self.model_wrapped.eval()
        found = []
        for batch in self.get_eval_dataloader(pairs):
            with self.compute_loss_context_manager():
                values = compute_answer_logprobs(self.model_wrapped, self._prepare_inputs(batch))
            found.append(self.accelerator.gather_for_metrics(fill_rows(values, int(batch[ROWS]))).cpu())
        return torch.cat(found)[: len(pairs)].double()


class BeforeFirstStep(TrainerCallback):
    """Calls a function when the model is ready and has not yet been evaluated or trained."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  (the hook's)
        """Call it."""
        self._act()


def write_references(file: Path, values: Mapping[str, Tensor], sets: Mapping[str, Preferences]) -> None:
    """Write the reference's log-probabilities of several sets of pairs, with the digests of their ids."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".part")  # so that a half-written file is never read
    save_file(dict(values), scratch, metadata={name: each.digest() for name, each in sets.items()})
    scratch.replace(file)


def read_references(file: Path, sets: Mapping[str, Preferences]) -> dict[str, Tensor]:
    """Read the reference's log-probabilities of these sets of pairs.

    Raises:
        RecipeError: there is no such file, or it is of other pairs.
    """
    if not file.is_file():
        raise RecipeError(f"--resume: {file} is missing, which has the reference's log-probabilities; start anew")
    with safe_open(file, framework="pt") as content:
        written = content.metadata() or {}
        for name, each in sets.items():
            if written.get(name) != each.digest():
                raise RecipeError(f"--resume: {file} is of other pairs ({name}): the data have changed; start anew")
        return {name: content.get_tensor(name) for name in sets}
