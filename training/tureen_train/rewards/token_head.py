"""A score head to start from: the difference of two tokens' rows in the LM head.

With it the reward is the two tokens' log-odds, ln p(first) − ln p(second), as the base already says them where it is
asked: RLHFlow's softmax over A and B before any training. Exact where the LM head is linear; a cap on logits, as
Gemma 2 has, is left out, and turns no verdict.
"""

from typing import Any

import torch
from torch import Tensor

from tureen_train.config import PairLoss, RecipeError, RewardRun, StepsLoss
from tureen_train.networks.sharded import gather_weights


def start_from_tokens(model: Any, tokenizer: Any, run: RewardRun) -> None:
    """Set the first row of ``model.score``, before the model is adapted.

    Raises:
        RecipeError: a text of ``loss.tokens`` is not one token.
    """
    assert isinstance(run.loss, PairLoss | StepsLoss)
    first, second = (_token(tokenizer, text) for text in run.loss.tokens)
    weight: Tensor = model.get_output_embeddings().weight
    with gather_weights([weight, model.score.weight], run.scale.zero == 3), torch.no_grad():
        model.score.weight[0] = weight[first].to(model.score.weight) - weight[second].to(model.score.weight)


def _token(tokenizer: Any, text: str) -> int:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise RecipeError(f"loss.tokens: {text!r} is {len(ids)} tokens of this base; name two that are one each")
    return ids[0]
