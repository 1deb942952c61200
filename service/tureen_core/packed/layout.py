"""A packed batch: texts as one sequence without padding. Knows the layout only: no model, no device.

A prompt that texts share is a segment, what a text adds to it is another, and a text that shares nothing is one by
itself. Segments stand end to end, every token once. ``keys`` lists for each segment the places that its tokens may
attend to: its prompt's, then its own. A text is therefore the keys of its last segment.
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

READ = 2  # tokens at a segment's end: pooling ``last`` reads the token before an appended EOS


class Text(Protocol):
    """Token ids, and the weights of the adapters that compute them (empty for the bare model)."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the whole text."""

    @property
    def blend(self) -> Blend:
        """Canonical ``((adapter, weight), …)``."""


class PlainText(NamedTuple):
    """A text for one model as it is loaded."""

    ids: tuple[int, ...]
    blend: Blend = ()


@dataclass(frozen=True)
class PackedBatch:
    """B texts as T tokens in S segments with K keys; all tensors are int64 on the CPU.

    Attributes:
        ids: ``[T]``.
        positions: ``[T]``, of each token in its own text.
        keys: ``[K]`` places in the sequence and behind it, segment after segment. Where nothing is shared, K is T and
            every place stands for itself.
        lengths: ``[S]`` tokens of each segment.
        reaches: ``[S]`` keys of each segment, its own tokens the last of them.
        blends: of each segment.
        segments: ``[B]``, the segment of each text's last token.
        known: prompts that were computed before; their keys and values stand behind the sequence, end to end.
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
    """The last tokens of each segment, for a model's last layer.

    Attributes:
        places: ``[N]`` of these tokens in the sequence.
        queries_at: ``[S + 1]`` int32, where each segment's begin among the N.
        layer: the number of the last layer.
    """

    places: Tensor
    queries_at: Tensor
    layer: int


def pack_texts(texts: Sequence[Text], prompts: Mapping[int, Prompt], known: Container[Prompt] = ()) -> PackedBatch:
    """Lay texts out, each shared prompt before the first text that continues it.

    Args:
        prompts: what a text begins with and shares, by the text's index; it is shorter than the text. The other texts
            stand whole.
        known: prompts that were computed before.
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
    """``[S + 1]``: where each of these begins when they stand end to end, and where the last one ends."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def find_ends(batch: PackedBatch, layer: int) -> SegmentEnds:
    """Find the last :data:`READ` tokens of each segment; ``layer`` is the number of the model's last layer."""
    counts = batch.lengths.clamp(max=READ)
    segments = torch.arange(len(counts)).repeat_interleave(counts)
    back = find_edges(counts)[1:][segments] - torch.arange(len(segments))
    return SegmentEnds(find_edges(batch.lengths)[1:][segments] - back, find_edges(counts).int(), layer)


def _lay_out(pieces: Sequence[Prompt], behind: Sequence[Prompt], stems: Tensor, segments: Tensor) -> PackedBatch:
    """``stems`` ``[S]`` is the segment of each one's prompt, or itself; below 0 it counts back from the last behind."""
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
    """All ids end to end, in a quarter of the time that a tensor takes from a list."""
    return torch.frombuffer(array("q", chain.from_iterable(ids for ids, _ in pieces)), dtype=torch.int64)


def _count_up(firsts: Tensor, lengths: Tensor) -> Tensor:
    """Count up from each first number for its length; the runs end to end."""
    shifts = firsts - find_edges(lengths)[:-1]
    return torch.arange(int(lengths.sum())) + shifts.repeat_interleave(lengths)
