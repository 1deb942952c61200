"""Hidden states of a frozen model, cached on disk for the next run on the same texts."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from tureen_core.heads import pool_hidden_states
from tureen_train.networks.tensor_cache import load_or_compute
from tureen_train.rewards.collate import EncodedRecord, pad_texts


@dataclass(frozen=True)
class States:
    """Hidden states of some items, float32.

    Attributes:
        answers: ``[M, H]``, pooled, in the order of the items.
        prompts: ``[B, H]``, at the last token of each item's prompt; at the first token where the prompt's end is not
            known.
        group: ``[M]``, the number of the item that each answer belongs to.
    """

    answers: Tensor
    prompts: Tensor
    group: Tensor


class Features:
    """Computes the hidden states of encoded items.

    Args:
        model: a reward model without adapters around it, in evaluation mode.
        identity: a name of its weights; it is a part of the cache's key.
        cache: the folder of the cache.
        batch: how many texts run together.
    """

    def __init__(self, model: Any, identity: str, cache: Path, batch: int) -> None:
        self.model, self.identity, self.batch = model, identity, batch
        self.folder = cache / "features"

    def __call__(self, items: Sequence[EncodedRecord]) -> States:
        """Return the states of ``items``, from the cache where they are there."""
        owners = torch.tensor([number for number, item in enumerate(items) for _ in item.ids], dtype=torch.long)
        found = load_or_compute(self.folder / f"states-{self._name(items)}.safetensors", lambda: self.read(items))
        return States(found["answers"], found["prompts"], owners)

    def read(self, items: Sequence[EncodedRecord]) -> dict[str, Tensor]:
        """Compute ``answers [M, H]`` and ``prompts [B, H]``. Texts of similar length run together."""
        texts = [(ids, start) for item in items for ids, start in zip(item.ids, item.starts, strict=True)]
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place][0]))
        hidden = self.model.config.hidden_size
        answers, prompts = torch.zeros(len(texts), hidden), torch.zeros(len(texts), hidden)
        for places in track(list(_parts(order, self.batch)), description="hidden states", transient=True):
            answers[places], prompts[places] = self._states([texts[place] for place in places])
        firsts = torch.tensor([len(item.ids) for item in items]).cumsum(0) - torch.tensor([len(i.ids) for i in items])
        return {"answers": answers, "prompts": prompts[firsts].clone()}

    @torch.inference_mode()
    def _states(self, texts: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
        batch = pad_texts([ids for ids, _ in texts], self.model.config.pad_token_id or 0)
        ids, mask = (batch[name].to(self.model.device) for name in ("input_ids", "attention_mask"))
        hidden = self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        reading = self.model.reading
        ends = torch.tensor([max(start - 1, 0) for _, start in texts], device=hidden.device)
        prompts = hidden[torch.arange(len(texts), device=hidden.device), ends]
        return pool_hidden_states(hidden, mask, reading.pooling, reading.eos == "append").cpu(), prompts.float().cpu()

    def _name(self, items: Sequence[EncodedRecord]) -> str:
        """A digest of the texts, of how they are read, and of the weights."""
        digest = hashlib.sha256(
            json.dumps([self.identity, self.model.config.tureen_reading, str(self.model.dtype)]).encode()
        )
        for item in items:
            digest.update(json.dumps([item.ids, item.starts[:1]]).encode())
        return digest.hexdigest()[:24]


def _parts(order: list[int], size: int) -> Iterator[list[int]]:
    return (order[start : start + size] for start in range(0, len(order), size))
