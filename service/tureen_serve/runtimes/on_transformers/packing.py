"""A batch as one sequence without padding. Knows the layout only: no model, no device.

A prompt that rows share is a segment, what an answer adds to it is another, and a row that shares nothing is one by
itself. Segments stand end to end, every token once. ``keys`` lists for each segment in turn the places that its tokens
may attend to: its prompt's, then its own. A row's text is therefore the keys of its segment.
"""

from array import array
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from tureen_serve.runtimes.contract import Row, Weights
from tureen_serve.runtimes.on_transformers.sharing import Prompt


@dataclass(frozen=True)
class Packing:
    """T tokens in S segments with K keys.

    Attributes:
        ids: ``[T]``.
        positions: ``[T]``, of each token in its own text.
        keys: ``[K]`` places in the sequence and behind it, segment after segment. Where nothing is shared, K is T and
            every place stands for itself.
        lengths: ``[S]`` tokens of each segment.
        reaches: ``[S]`` keys of each segment, its own tokens the last of them.
        blends: of each segment.
        segments: ``[B]``, the segment of each row's last token.
        known: the prompts that stand behind the sequence, end to end.
    """

    ids: Tensor
    positions: Tensor
    keys: Tensor
    lengths: Tensor
    reaches: Tensor
    blends: tuple[Weights, ...]
    segments: Tensor
    known: tuple[Prompt, ...] = ()

    def texts(self, picks: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where the tokens of these rows stand, and a mask that is 1 on them; both ``[n, L]``, padded on the right."""
        chosen = self.segments[list(picks)]
        lengths = self.reaches[chosen].unsqueeze(1)
        offsets = torch.arange(int(lengths.max()))
        starts = edges(self.reaches)[chosen].unsqueeze(1)
        mask = offsets < lengths
        return self.keys[torch.where(mask, starts + offsets, 0)], mask.long()


def pack(rows: Sequence[Row], prompts: Mapping[int, Prompt], known: Container[Prompt] = ()) -> Packing:
    """Lay rows out, each prompt before the first of its answers.

    Args:
        prompts: of the rows that share theirs, by index; the other rows stand whole.
        known: prompts that were computed before.
    """
    behind = list(dict.fromkeys(each for each in prompts.values() if each in known))
    pieces: list[Prompt] = []
    stems: list[int] = []
    places = {each: place - len(behind) for place, each in enumerate(behind)}  # from the end, as lists count
    segments: list[int] = []
    for index, row in enumerate(rows):
        shared = prompts.get(index)
        if shared is not None and shared not in places:
            places[shared] = len(pieces)
            stems.append(len(pieces))
            pieces.append(shared)
        segments.append(len(pieces))
        stems.append(len(pieces) if shared is None else places[shared])
        pieces.append((row.ids if shared is None else row.ids[row.shared :], row.blend))
    return _lay(pieces, behind, torch.tensor(stems), torch.tensor(segments))


def edges(lengths: Tensor) -> Tensor:
    """Where each of these stands when they stand end to end, and where the last one ends: ``[S + 1]``."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _lay(pieces: Sequence[Prompt], behind: Sequence[Prompt], stems: Tensor, segments: Tensor) -> Packing:
    """``stems`` ``[S]`` is the segment of each one's prompt, or itself; below 0 it counts back from the last behind."""
    every = torch.tensor([len(ids) for ids, _ in (*pieces, *behind)])
    firsts, lengths = edges(every)[:-1], every[: len(pieces)]
    before = torch.where(stems == torch.arange(len(pieces)), 0, every[stems])
    starts = torch.stack([firsts[stems], firsts[: len(pieces)]], 1)
    return Packing(
        ids=_tensor(pieces),
        positions=_runs(before, lengths),
        keys=_runs(starts.flatten(), torch.stack([before, lengths], 1).flatten()),
        lengths=lengths,
        reaches=before + lengths,
        blends=tuple(blend for _, blend in pieces),
        segments=segments,
        known=tuple(behind),
    )


def _tensor(pieces: Sequence[Prompt]) -> Tensor:
    """All ids end to end, in a quarter of the time that a tensor takes from a list."""
    return torch.frombuffer(array("q", chain.from_iterable(ids for ids, _ in pieces)), dtype=torch.int64)


def _runs(firsts: Tensor, lengths: Tensor) -> Tensor:
    """Counting up from each first for its length, end to end."""
    shifts = firsts - edges(lengths)[:-1]
    return torch.arange(int(lengths.sum())) + shifts.repeat_interleave(lengths)
