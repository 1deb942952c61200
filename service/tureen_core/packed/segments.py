"""Attention of a packed batch segment by segment, for a kernel that takes one sequence at a time.

Places and masks are computed once for a batch and used by every layer.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

EVERYTHING = -1


class Segments:
    """S segments with K keys in all.

    Args:
        keys: ``[K]`` places that each segment sees, segment after segment.
        queries_at: ``[S + 1]``, where each segment begins among the queries.
        keys_at: ``[S + 1]``, where each segment begins among the keys.
    """

    def __init__(self, keys: Tensor, queries_at: Tensor, keys_at: Tensor) -> None:
        self._keys, self._queries_at, self._keys_at = keys, queries_at, keys_at
        self._masks: dict[tuple[bool, int, torch.dtype, torch.device], list[Tensor | None]] = {}

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        causal: bool,
        window: int,
        scale: float,
        dropout: float = 0.0,
    ) -> Tensor:
        """Compute attention ``[T, H, D]`` of ``query`` ``[T, H, D]`` to ``key`` and ``value`` ``[T, H_kv, D]``.

        Args:
            window: how many keys back a token sees, itself included; :data:`EVERYTHING` for all.
        """
        q, k, v = (each.transpose(0, 1).unsqueeze(0) for each in (query, key, value))
        # one split whose pieces are joined: in the backward pass every separate slice would need a tensor of full size
        queries, keys, values = q.split(self._queries, 2), k.split(self._sizes, 2), v.split(self._sizes, 2)
        found = []
        for own, pieces, mask in zip(queries, self._pieces, self._make_masks(causal, window, query), strict=True):
            states = scaled_dot_product_attention(
                own,
                _join(keys, pieces),
                _join(values, pieces),
                mask,
                dropout,
                is_causal=causal and mask is None,
                scale=scale,
                enable_gqa=q.shape[1] != k.shape[1],
            )
            found.append(states[0].transpose(0, 1))
        return torch.cat(found)

    @cached_property
    def _queries(self) -> list[int]:
        return _list(self._queries_at.diff())

    @cached_property
    def _reaches(self) -> list[int]:
        return _list(self._keys_at.diff())

    @cached_property
    def _runs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The R runs of consecutive keys: where each begins, where it ends, and its segment, ``[R]`` each."""
        keys, edges = self._keys.cpu(), self._keys_at.cpu().long()
        begins = torch.ones(len(keys), dtype=torch.bool)
        begins[1:] = keys[1:] != keys[:-1] + 1
        begins[edges[edges < len(keys)]] = True
        at = begins.nonzero().flatten()
        lengths = torch.cat([at, edges[-1:]]).diff()
        return keys[at], keys[at] + lengths, torch.searchsorted(edges, at, right=True) - 1

    @cached_property
    def _edges(self) -> Tensor:
        """The places where a run begins or ends."""
        firsts, ends, _ = self._runs
        edges: Tensor = torch.cat([firsts, ends]).unique()
        return edges

    @cached_property
    def _sizes(self) -> list[int]:
        """The lengths of the pieces between two neighbouring edges."""
        return _list(self._edges.diff())

    @cached_property
    def _pieces(self) -> list[list[int]]:
        """For each segment, the pieces that it sees, in order."""
        firsts, ends, segments = self._runs
        found: list[list[int]] = [[] for _ in self._queries]
        borders = zip(*(_list(torch.searchsorted(self._edges, each)) for each in (firsts, ends)), strict=True)
        for segment, (first, end) in zip(_list(segments), borders, strict=True):
            found[segment] += range(first, end)
        return found

    def _make_masks(self, causal: bool, window: int, like: Tensor) -> list[Tensor | None]:
        """Make each segment's mask ``[Q, K]``; None if the kernel's own causal flag is enough, or nothing is hidden."""
        key = causal, window, like.dtype, like.device
        if key not in self._masks:
            sizes = list(zip(self._queries, self._reaches, strict=True))
            cut = [size for size in sizes if causal and (size[0] < size[1] or EVERYTHING < window < size[1])]
            most = max((queries for queries, _ in cut), default=0), max((reach for _, reach in cut), default=0)
            mask = _hide_later_keys(*most, window, like)
            corners = [mask[most[0] - queries :, most[1] - reach :] for queries, reach in sizes]
            self._masks[key] = [
                (corner.contiguous() if like.is_cuda else corner) if size in cut else None
                for size, corner in zip(sizes, corners, strict=True)
            ]
        return self._masks[key]


def _hide_later_keys(queries: int, keys: int, window: int, like: Tensor) -> Tensor:
    """Make the causal mask ``[Q, K]`` of a text's last Q tokens over its K keys: 0 where a token sees, else −∞.

    With a window, a token sees only the last ``window`` keys up to itself. The bottom right corner of this mask is the
    mask of fewer tokens or keys. The mask has the dtype and device of ``like``.
    """
    hidden = torch.ones(queries, keys, dtype=torch.bool, device=like.device).triu(keys - queries + 1)
    if window != EVERYTHING:
        hidden |= torch.ones_like(hidden).tril(keys - queries - window)
    return torch.zeros(queries, keys, dtype=like.dtype, device=like.device).masked_fill(hidden, float("-inf"))


def _join(states: Sequence[Tensor], pieces: Sequence[int]) -> Tensor:
    """Join a segment's pieces of keys or values. A single piece is not copied; without pieces the result is empty."""
    if not pieces:
        return states[0][:, :, :0]
    return states[pieces[0]] if len(pieces) == 1 else torch.cat([states[piece] for piece in pieces], 2)


def _list(numbers: Tensor) -> list[int]:
    found: list[int] = numbers.tolist()
    return found
