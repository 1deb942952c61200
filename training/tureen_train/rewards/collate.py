"""Records to ids to tensors, by the service's own template: what is trained on is what is served."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tureen_core.template import Rendered, Renderer
from tureen_train.config import RewardLoss
from tureen_train.records.schema import Record
from tureen_train.rewards.losses import normalised_scores


@dataclass(frozen=True)
class Encoded:
    """One prompt's answers as ids, with their scores. ``starts[i]`` is where answer i begins, 0 if not known."""

    ids: list[list[int]]
    starts: list[int]
    scores: list[float]

    @property
    def longest(self) -> int:
        """Tokens of the longest answer with its prompt."""
        return max(len(each) for each in self.ids)


class EncodedRecords(Dataset[Encoded]):
    """Encoded records, in memory. ``truncated`` counts the answers that were cut to ``max_length``."""

    def __init__(self, records: Iterable[Record], renderer: Renderer) -> None:
        self.truncated = 0
        self.items = [self._encode(record, renderer) for record in records]

    def _encode(self, record: Record, renderer: Renderer) -> Encoded:
        rendered = render(record, renderer)
        self.truncated += sum(each.truncated for each in rendered)
        return Encoded([each.ids for each in rendered], [each.shared for each in rendered], list(record.scores))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Encoded:
        return self.items[index]

    @property
    def width(self) -> int:
        """The most answers any prompt has."""
        return max((len(item.ids) for item in self.items), default=0)


def render(record: Record, renderer: Renderer) -> list[Rendered]:
    """Ids of each answer, cut from the left where too long. A record without prompt holds whole conversations."""
    if record.prompt:
        return renderer.candidates(record.prompt, record.answers)
    return [renderer.conversation(answer) for answer in record.answers]


class Collator:
    """Flattens prompts to rows of answers, padded on the right, with ``group`` saying whose each row is.

    Args:
        pad: the pad id; the mask, not the id, says what is padding.
        loss: says which tokens are imitated; with a coefficient of 0 none are.
        width: columns of ``table``, where evaluation lays each prompt's answers side by side.
    """

    def __init__(self, pad: int, loss: RewardLoss, width: int) -> None:
        self.pad = pad
        self.loss = loss
        self.width = width

    def __call__(self, items: Sequence[Encoded]) -> dict[str, Tensor]:
        rows = [ids for item in items for ids in item.ids]
        longest = max(len(ids) for ids in rows)
        batch = {
            "input_ids": torch.tensor([ids + [self.pad] * (longest - len(ids)) for ids in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows]),
            "group": torch.tensor([number for number, item in enumerate(items) for _ in item.ids]),
            "scores": table([item.scores for item in items], self.width),
            "lengths": table([[float(len(ids)) for ids in item.ids] for item in items], self.width),
        }
        if self.loss.lm_coefficient:
            batch["imitated"] = self._imitated(items, batch["attention_mask"])
        return batch

    def _imitated(self, items: Sequence[Encoded], mask: Tensor) -> Tensor:
        """``[M, T]``: the answer's tokens (the prompt's too if asked) of texts scored above the threshold."""
        kept = [
            score > self.loss.lm_threshold for item in items for score in normalised_scores(item.scores)
        ]  # NaN is above nothing
        starts = [0 if self.loss.lm_prompt else start for item in items for start in item.starts]
        after = torch.arange(mask.shape[1])[None, :] >= torch.tensor(starts)[:, None]
        return mask.bool() & after & torch.tensor(kept)[:, None]


def table(values: Sequence[Sequence[float]], width: int) -> Tensor:
    """Ragged rows as ``[B, width]`` float32, NaN where there is nothing."""
    return torch.tensor([[*row, *[math.nan] * (width - len(row))] for row in values], dtype=torch.float32)
