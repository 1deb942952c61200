"""A base with further tokens: a tokenizer that reads some texts as one token each, and rows of embeddings for them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, AutoModelForCausalLM

from tureen_core.base import load_tokenizer


def extend_base(base: Path, tokens: Sequence[str], folder: Path) -> Path:
    """Write a base whose tokenizer has further tokens, if it is not there yet.

    A new row is the mean of the embeddings of the text's tokens so far. The tokens are no control tokens: a message may
    have them. Where the embeddings are not tied, the LM head gets such rows too.

    Args:
        base: a folder with a whole causal model.
        tokens: their texts; one that is a token already is left as it is.
        folder: is written whole or not at all.

    Returns:
        ``folder``; ``base`` if there is no new token.
    """
    if not tokens or folder.is_dir():
        return folder if tokens else base
    tokenizer = load_tokenizer(base)
    parts = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in tokens}
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in tokens])
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", local_files_only=True)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:  # some models have more rows than their tokenizers have tokens
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _set_rows(model, {tokenizer.convert_tokens_to_ids(text): ids for text, ids in parts.items()})
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was broken
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(folder)
    return folder


@torch.no_grad()
def _set_rows(model: Any, parts: Mapping[int, list[int]]) -> None:
    """Set the rows of new ids to the means of other rows, in the embeddings and in the LM head."""
    inner, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    for weight in (inner,) if head is inner else (inner, head):
        for token, ids in parts.items():
            if ids != [token]:
                weight[token] = weight[ids].float().mean(0).to(weight.dtype)
