"""Models over one base run their lowest layers once, where only the layers above are adapted."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

ROOM = 256 * 2**20  # bytes of hidden states that are remembered


class RememberedLayers(nn.Module):
    """Runs some layers one after the other, and remembers what came out for the last inputs.

    It stands in the place of the layers in several models that do not train. Equal hidden states with equal masks and
    positions are computed once. The layers must not read a cache of keys and values.

    Args:
        layers: the lowest layers of the first model.
        room: the bytes of hidden states that are remembered.
    """

    def __init__(self, layers: list[nn.Module], room: int = ROOM) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.room = room
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()

    def forward(self, hidden: Tensor, **inputs: Any) -> Tensor:
        """Compute the hidden states ``[B, T, H]`` after the layers."""
        key = _digest(hidden, inputs)
        found = self._known.pop(key, None)
        if found is None:
            found = hidden
            for layer in self.layers:
                found = layer(found, **inputs)
        self._known[key] = found
        while sum(each.nbytes for each in self._known.values()) > self.room:
            self._known.popitem(last=False)
        return found


def _digest(hidden: Tensor, inputs: dict[str, Any]) -> bytes:
    """A hash of everything that the layers are given."""
    digest = hashlib.blake2b(digest_size=16)
    left: list[Any] = [hidden, *(part for name in sorted(inputs) for part in (name, inputs[name]))]
    while left:
        each = left.pop()
        if isinstance(each, tuple | list):
            left += each
        elif isinstance(each, Tensor):
            digest.update(str((each.shape, each.dtype)).encode())
            digest.update(each.contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
        else:
            digest.update(repr(each).encode())
    return digest.digest()


def share_lower_layers(models: Sequence[Any]) -> int:
    """Let frozen models over one base run the lowest layers once that are the same in all, tensor by tensor.

    Models whose first layer is adapted stay as they are. Where the layers are of several types, or a model keeps them
    elsewhere, nothing is shared.

    Args:
        models: Hugging Face models, after :func:`.shared_base.share_equal_weights`, which finds nothing afterwards.

    Returns:
        The number of layers that are now shared.
    """
    first, *others = [_find_layers(each) for each in models]
    if any(len({*(getattr(each.config, "layer_types", None) or [""])}) > 1 for each in models):
        return 0
    depths = [_count_equal(first, each) for each in others]
    depth = min((each for each in depths if each), default=0)
    if depth:
        remembered = RememberedLayers(list(first[:depth]))
        for model, own in zip(models, [len(first), *depths], strict=True):
            if own:
                model.base_model.layers = nn.ModuleList([remembered, *model.base_model.layers[depth:]])
    return depth


def _find_layers(model: Any) -> nn.ModuleList:
    layers = getattr(model.base_model, "layers", None)
    return layers if isinstance(layers, nn.ModuleList) else nn.ModuleList()


def _count_equal(first: nn.ModuleList, second: nn.ModuleList) -> int:
    """Count the lowest layers that two models have in common."""
    pairs = zip(first, second, strict=False)
    return next((at for at, pair in enumerate(pairs) if not _hold_the_same(*pair)), min(len(first), len(second)))


def _hold_the_same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two layers have the same tensors under the same names, so that neither is adapted."""
    mine, yours = dict(one.named_parameters()), dict(other.named_parameters())
    return mine.keys() == yours.keys() and all(mine[name].data_ptr() == yours[name].data_ptr() for name in mine)
