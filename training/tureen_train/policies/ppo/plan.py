"""Which texts are learnt from together: passes, updates, micro-batches, ranks. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

Share = list[int]


@dataclass(frozen=True)
class Update:
    """The texts of one update, by their numbers: ``micro_batches[j][rank]`` run together on a rank.

    A rank without texts has an empty share there.
    """

    micro_batches: list[list[Share]]

    @property
    def texts(self) -> list[int]:
        """All of them."""
        return [text for shares in self.micro_batches for share in shares for text in share]


def plan_passes(
    owners: Sequence[int], passes: int, parts: int, batch: int, ranks: int, seed: str
) -> list[list[Update]]:
    """Plan the updates of some passes over the same texts.

    In each pass the prompts come in another order, and the texts of a prompt follow each other, so that they can share
    its tokens.

    Args:
        owners: the number of each text's prompt.
        passes: how often all texts are learnt from.
        parts: the updates of a pass; fewer where there are fewer texts.
        batch: the texts of a micro-batch on one rank.
        ranks: the number of ranks.
        seed: of the order.
    """
    draw = random.Random(seed)
    planned = []
    for _ in range(passes):
        order = sorted(set(owners))
        draw.shuffle(order)
        places = {owner: place for place, owner in enumerate(order)}
        texts = sorted(range(len(owners)), key=lambda text: (places[owners[text]], text))
        parted = _divide(texts, min(parts, len(texts)))
        planned.append([_plan_update(part, batch, ranks) for part in parted])
    return planned


def _plan_update(texts: Share, batch: int, ranks: int) -> Update:
    size = batch * ranks
    return Update([_divide(texts[first : first + size], ranks) for first in range(0, len(texts), size)])


def _divide(texts: Share, parts: int) -> list[Share]:
    """Divide texts into parts of almost equal size, in order; the first ones are the larger."""
    size, larger = divmod(len(texts), parts)
    edges = [part * size + min(part, larger) for part in range(parts + 1)]
    return [texts[first:last] for first, last in zip(edges, edges[1:], strict=False)]
