"""A start for the score head: the difference of two tokens' rows in the LM head.

The reward is then the log-odds of the two tokens, ln p(first) − ln p(second), as the base gives them: RLHFlow's softmax
over A and B before any training. This is exact for a linear LM head. A cap on logits, as in Gemma 2, is left out; it
changes no verdict.
"""

from typing import Any

import torch
from torch import Tensor

from tureen_train.config import PairLoss, RecipeError, RewardRun, StepsLoss
from tureen_train.networks.sharded import gather_weights


def start_from_tokens(model: Any, tokenizer: Any, run: RewardRun) -> None:
    """Set the first row of ``model.score``, before the model gets its adapter.

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
        raise RecipeError(
            f"loss.tokens: {text!r} is {len(ids)} tokens of this base; name two texts that are one token each"
        )
    return ids[0]
