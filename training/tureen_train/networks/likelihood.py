"""Likelihood of texts from a language model's logits. Pure."""

from torch import Tensor
from torch.nn import functional


def compute_token_nll(logits: Tensor, ids: Tensor, counted: Tensor) -> Tensor:
    """Compute the mean negative log-likelihood of the counted tokens of each text.

    Args:
        logits: ``[M, T, V]``; position t predicts token t + 1.
        ids: ``[M, T]``.
        counted: ``[M, T]``, true for the tokens that count. The first token never counts: nothing predicts it.

    Returns:
        ``[M]``, in nats per token; 0 for a text without counted tokens.
    """
    wanted = counted[:, 1:]
    losses = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    losses = losses.view(wanted.shape) * wanted
    return losses.sum(1) / wanted.sum(1).clamp(min=1)
