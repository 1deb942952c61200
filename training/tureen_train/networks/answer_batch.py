"""A batch of answers with their prompts, laid out so that a model reads only the answers' tokens. No model, no device.

A token is predicted at the token before it. So an answer is predicted at the last token of its prompt, and at its own
tokens but the last. Packed answers to one prompt share the tokens that they begin with, so one token may predict the
next token of several answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tureen_core.packed.layout import PackedBatch
from tureen_train.networks.packing import pack_ids

Layout = Literal["prompts", "texts", "off"]


@dataclass(frozen=True)
class AnswerBatch:
    """M texts with N answer tokens in all. All tensors are int64 on the CPU; the model moves them.

    Attributes:
        ids: ``[M, T]``, the texts, padded on the right.
        attention_mask: ``[M, T]``, 1 on tokens.
        packing: the same texts packed; None runs them padded.
        places: ``[N]``, the token that predicts each answer token: its place in the packed row, or in the padded texts
            one after the other. Answer follows answer.
        targets: ``[N]``, the ids of the answers' tokens.
        lengths: ``[M]``, the number of tokens of each answer, which may be 0.
    """

    ids: Tensor
    attention_mask: Tensor
    packing: PackedBatch | None
    places: Tensor
    targets: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)


def lay_out_answers(
    texts: Sequence[Sequence[int]],
    starts: Sequence[int],
    groups: Sequence[int],
    pad: int,
    layout: Layout = "off",
) -> AnswerBatch:
    """Lay out texts of a prompt and an answer each.

    Args:
        texts: M lists of ids, of the prompt and then of the answer.
        starts: where each answer begins; at least 1, since nothing predicts a text's first token.
        groups: equal numbers for answers to one prompt.
        pad: the id of padding. It may also occur in a text.
        layout: how the texts run. With ``prompts`` they are packed in one row, and those of a group share what they
            begin with; ``texts`` packs without sharing; ``off`` pads. Packed texts need a model with packed attention,
            see :func:`tureen_train.networks.packing.switch_to_packed`.

    Raises:
        ValueError: an answer begins before the second token of its text, or after its end.
    """
    if not all(1 <= start <= len(text) for start, text in zip(starts, texts, strict=True)):
        raise ValueError("an answer must begin between the second token of its text and its end")
    rows = [tuple(text) for text in texts]
    lengths = torch.tensor([len(text) for text in rows])
    ids = pad_sequence([torch.tensor(text) for text in rows], batch_first=True, padding_value=pad)
    columns = torch.arange(ids.shape[1])
    answers = (columns >= torch.tensor(starts)[:, None]) & (columns < lengths[:, None])
    packing = None if layout == "off" else pack_ids(rows, groups if layout == "prompts" else None)
    every = torch.arange(ids.numel()).view_as(ids) if packing is None else packing.find_texts(range(len(rows)))[0]
    return AnswerBatch(
        ids=ids,
        attention_mask=(columns < lengths[:, None]).long(),
        packing=packing,
        places=every[:, :-1][answers[:, 1:]],
        targets=ids[answers],
        lengths=answers.sum(1),
    )
