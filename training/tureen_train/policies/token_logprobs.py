"""Log-probabilities of answers' tokens under a policy, with gradients.

The model is one that :func:`tureen_train.networks.policy_model.load_policy_model` loaded, bare or wrapped by PEFT, DDP
or DeepSpeed. The results and gradients of packed and padded batches are equal to 1e-5 in float32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tureen_train.networks.answer_batch import AnswerBatch, Layout, lay_out_answers
from tureen_train.policies.encoding import EncodedAnswer


class TokenLogprobs(NamedTuple):
    """What a policy says of M answers; L is the number of tokens of the longest one.

    Attributes:
        logprobs: ``[M, L]`` float32, log π of each token, in nats; 0 after an answer's end.
        mask: ``[M, L]``, true on the answers' tokens.
        entropies: ``[M, L]`` float32, the entropy of each token's distribution, in nats; None if not asked for.
    """

    logprobs: Tensor
    mask: Tensor
    entropies: Tensor | None = None


def collate_answers(
    answers: Sequence[EncodedAnswer], groups: Sequence[int], pad: int, layout: Layout = "off"
) -> AnswerBatch:
    """Make a batch of answers. See :func:`tureen_train.networks.answer_batch.lay_out_answers`.

    Args:
        groups: equal numbers for answers to one prompt.
        pad: the id of padding.
        layout: ``prompts`` and ``texts`` need a model with packed attention, see
            :func:`tureen_train.networks.packing.switch_to_packed`.
    """
    return lay_out_answers([each.ids for each in answers], [each.start for each in answers], groups, pad, layout)


def compute_token_logprobs(
    model: Any, batch: AnswerBatch, temperature: float = 1.0, with_entropies: bool = False
) -> TokenLogprobs:
    """Compute the log-probability of each token of each answer, given its prompt and the tokens before it.

    Example::

        batch = collate_answers(answers, groups=[0, 0, 1], pad=tokenizer.pad_token_id)
        logprobs, mask, _ = compute_token_logprobs(model, batch)
        loss = -logprobs.sum() / mask.sum()

    A prompt of several answers is computed once in a batch of the layout ``prompts``. Only the tokens that predict an
    answer's token go through the LM head.

    Args:
        model: in the mode (training or evaluation) that is wanted. Every rank must call it.
        temperature: the logits are divided by it.
        with_entropies: whether to compute the entropies too.
    """
    output = model(answers=batch, temperature=temperature, with_entropies=with_entropies)
    lengths = batch.lengths.to(output["logprobs"].device)
    mask = torch.arange(int(batch.lengths.max()), device=lengths.device) < lengths[:, None]
    entropies = _lay_out(output["entropies"], batch) if with_entropies else None
    return TokenLogprobs(_lay_out(output["logprobs"], batch), mask, entropies)


def _lay_out(values: Tensor, batch: AnswerBatch) -> Tensor:
    """Lay out ``[N]`` values as ``[M, L]``, padded with 0 on the right."""
    return pad_sequence(list(values.split(batch.lengths.tolist())), batch_first=True)
