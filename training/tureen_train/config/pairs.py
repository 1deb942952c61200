"""Settings of the pairwise preference model."""

from typing import Literal

from tureen_core.manifest import Input
from tureen_train.config.parts import Loss


class PairLoss(Loss):
    """RLHFlow's pairwise model (arXiv 2405.07863): reads two answers, gives the probability that the first is better.

    The loss is the binary cross-entropy of one logit; with the difference of two tokens' logits it is the published
    loss. ``sides: random`` trains on each pair in one order, drawn anew each time; ``both`` trains on both orders. With
    ``soft_labels`` a pair has the probability ``chosen_prob`` of its record, otherwise 1. Equal scores make no pair;
    with ``ties: half`` they make one of probability ½. With ``model.head: tokens`` the head starts as the difference of
    the LM head's rows of the two ``tokens``.
    """

    method: Literal["pair"]
    sides: Literal["random", "both"] = "random"
    soft_labels: bool = True
    ties: Literal["skip", "half"] = "skip"
    tokens: tuple[str, str] = ("A", "B")

    @property
    def input(self) -> Input:
        """The kind of the model's input."""
        return "pair"
