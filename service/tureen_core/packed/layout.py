"""A packed batch: texts as one sequence without padding. This module is about the layout only: no model, no device.

A prompt that several texts share is one segment, and the rest of each of these texts is another. A text that shares
nothing is one segment. Segments follow each other, and every token is there once. ``keys`` lists for each segment the
places that its tokens may attend to: those of its prompt, then its own. So a text is the keys of its last segment.
"""

from array import array
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Blend = tuple[tuple[str, float], ...]
Prompt = tuple[tuple[int, ...], Blend]

READ = 2  # tokens at the end of a segment that a head may read: pooling ``last`` takes the one before an appended EOS


class Text(Protocol):
    """A text's token ids and the weights of the adapters that run it (none for the bare model)."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the whole text."""

    @property
    def blend(self) -> Blend:
        """Canonical ``((adapter, weight), …)``."""


class PlainText(NamedTuple):
    """A text and its adapters' weights."""

    ids: tuple[int, ...]
    blend: Blend = ()


@dataclass(frozen=True)
class PackedBatch:
    """B texts as T tokens in S segments with K keys; all tensors are int64 on the CPU.

    Attributes:
        ids: ``[T]`` token ids.
        positions: ``[T]``, the position of each token in its own text.
        keys: ``[K]`` places of keys, segment after segment: in the sequence or, for known prompts, after its end. If
            nothing is shared, ``keys`` counts from 0 to T − 1.
        lengths: ``[S]``, the number of tokens of each segment.
        reaches: ``[S]``, the number of keys of each segment; its own tokens are the last of them.
        blends: the adapters' weights of each segment.
        segments: ``[B]``, the last segment of each text.
        known: prompts that earlier batches computed; their keys and values follow the sequence, one after the other.
    """

    ids: Tensor
    positions: Tensor
    keys: Tensor
    lengths: Tensor
    reaches: Tensor
    blends: tuple[Blend, ...]
    segments: Tensor
    known: tuple[Prompt, ...] = ()

    def find_texts(self, picks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Find the tokens of the picked texts.

        Returns:
            Their places, and a mask that is 1 on them; both ``[n, L]``, padded on the right to the longest.
        """
        chosen = self.segments[list(picks)]
        lengths = self.reaches[chosen].unsqueeze(1)
        offsets = torch.arange(int(lengths.max()))
        starts = find_edges(self.reaches)[chosen].unsqueeze(1)
        mask = offsets < lengths
        return self.keys[torch.where(mask, starts + offsets, 0)], mask.long()


class SegmentEnds(NamedTuple):
    """The last tokens of each segment, which are the only ones that a model's last layer must compute.

    Attributes:
        places: ``[N]``, the places of these tokens in the sequence.
        queries_at: ``[S + 1]`` int32, where each segment begins among these N tokens.
        layer: the number of the last layer.
    """

    places: Tensor
    queries_at: Tensor
    layer: int


def pack_texts(texts: Sequence[Text], prompts: Mapping[int, Prompt], known: Container[Prompt] = ()) -> PackedBatch:
    """Pack texts. Each shared prompt comes before the first text that continues it.

    Example::

        prompt = (1, 2, 3)
        texts = [PlainText((1, 2, 3, 4)), PlainText((1, 2, 3, 5, 6))]
        pack_texts(texts, {0: (prompt, ()), 1: (prompt, ())}).ids  # 1, 2, 3, 4, 5, 6

    Args:
        prompts: the shared prompt of a text, by the text's index. It is shorter than the text. A text without an entry
            is packed as a whole.
        known: prompts that earlier batches computed.
    """
    behind = list(dict.fromkeys(each for each in prompts.values() if each in known))
    pieces: list[Prompt] = []
    stems: list[int] = []
    places = {each: place - len(behind) for place, each in enumerate(behind)}  # from the end, as lists count
    segments: list[int] = []
    for index, text in enumerate(texts):
        prompt = prompts.get(index)
        if prompt is not None and prompt not in places:
            places[prompt] = len(pieces)
            stems.append(len(pieces))
            pieces.append(prompt)
        segments.append(len(pieces))
        stems.append(len(pieces) if prompt is None else places[prompt])
        pieces.append((text.ids if prompt is None else text.ids[len(prompt[0]) :], text.blend))
    return _lay_out(pieces, behind, torch.tensor(stems), torch.tensor(segments))


def find_edges(lengths: Tensor) -> Tensor:
    """Find where each segment begins when they follow each other, and where the last one ends: ``[S + 1]``."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def find_ends(batch: PackedBatch, layer: int) -> SegmentEnds:
    """Find the last :data:`READ` tokens of each segment; ``layer`` is the number of the model's last layer."""
    counts = batch.lengths.clamp(max=READ)
    segments = torch.arange(len(counts)).repeat_interleave(counts)
    back = find_edges(counts)[1:][segments] - torch.arange(len(segments))
    return SegmentEnds(find_edges(batch.lengths)[1:][segments] - back, find_edges(counts).int(), layer)


def _lay_out(pieces: Sequence[Prompt], behind: Sequence[Prompt], stems: Tensor, segments: Tensor) -> PackedBatch:
    """Make the batch of segments.

    Args:
        pieces: the ids and the adapters' weights of each segment.
        behind: the known prompts.
        stems: ``[S]``, the segment of each one's prompt, or its own number if it has none. A negative number counts
            back from the last known prompt.
        segments: ``[B]``, the last segment of each text.
    """
    every = torch.tensor([len(ids) for ids, _ in (*pieces, *behind)])
    firsts, lengths = find_edges(every)[:-1], every[: len(pieces)]
    before = torch.where(stems == torch.arange(len(pieces)), 0, every[stems])
    starts = torch.stack([firsts[stems], firsts[: len(pieces)]], 1)
    return PackedBatch(
        ids=_join_ids(pieces),
        positions=_count_up(before, lengths),
        keys=_count_up(starts.flatten(), torch.stack([before, lengths], 1).flatten()),
        lengths=lengths,
        reaches=before + lengths,
        blends=tuple(blend for _, blend in pieces),
        segments=segments,
        known=tuple(behind),
    )


def _join_ids(pieces: Sequence[Prompt]) -> Tensor:
    """Join the ids of all segments. An array is four times as fast as a tensor made from a list."""
    return torch.frombuffer(array("q", chain.from_iterable(ids for ids, _ in pieces)), dtype=torch.int64)


def _count_up(firsts: Tensor, lengths: Tensor) -> Tensor:
    """Count up from each first number, as many numbers as its length says, and join these runs."""
    shifts = firsts - find_edges(lengths)[:-1]
    return torch.arange(int(lengths.sum())) + shifts.repeat_interleave(lengths)
