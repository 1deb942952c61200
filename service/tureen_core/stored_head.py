"""The module that computes a head of linear layers, and its file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tureen_core.head_rule import HeadRule

HEAD_FILE = "head.safetensors"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}


class HeadError(ValueError):
    """The tensors of a head cannot be used. The message names the tensor and the reason."""


class StoredHead(nn.Module):
    """Maps hidden states ``[..., H]`` to rewards ``[..., K]`` in float32.

    Args:
        tensors: weights ``[out, in]`` and biases ``[out]`` by name, see :class:`HeadRule`.
        rule: what is between the layers and after them.

    Raises:
        HeadError: a layer is missing, its shape does not fit, or a value is not finite.
    """

    def __init__(self, tensors: Mapping[str, Tensor], rule: HeadRule) -> None:
        super().__init__()
        self.rule = rule
        self.layers = nn.ModuleList()
        weights = len([name for name in tensors if name.endswith(".weight")])
        if weights != len(rule.activations) + 1:
            raise HeadError(f"the head has {weights} layers and {len(rule.activations)} activations between them")
        known = {f"{index}.{part}" for index in range(weights) for part in ("weight", "bias")}
        if strange := sorted(set(tensors) - known):
            raise HeadError(f"unexpected tensor {strange[0]} in the head")
        size: int | None = None
        for index in range(weights):
            layer = _make_layer(index, tensors, size)
            size = layer.out_features
            self.layers.append(layer)
        if rule.output == "log-odds" and self.rows % 2:
            raise HeadError(f"log-odds need two rows for each reward, and the head has {self.rows}")

    @property
    def hidden(self) -> int:
        """H, the size of the hidden states that the head reads."""
        return int(self.get_parameter("layers.0.weight").shape[1])

    @property
    def rows(self) -> int:
        """The number of rows of the last layer."""
        return int(self.get_parameter(f"layers.{len(self.layers) - 1}.weight").shape[0])

    @property
    def rewards(self) -> int:
        """K, the number of rewards."""
        rewards = self.rows // 2 if self.rule.output == "log-odds" else self.rows
        return min(rewards, self.rule.kept or rewards)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute rewards ``[..., K]`` of pooled hidden states ``[..., H]``."""
        with torch.autocast(hidden.device.type, enabled=False):
            state = hidden.float()
            for index, layer in enumerate(self.layers):
                state = layer(state)
                if index < len(self.rule.activations):
                    state = ACTIVATIONS[self.rule.activations[index]](state)
            return apply_output(state, self.rule)

    def list_tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that ``head.safetensors`` has."""
        return {name.removeprefix("layers."): tensor for name, tensor in self.state_dict().items()}


def apply_output(logits: Tensor, rule: HeadRule) -> Tensor:
    """Compute rewards ``[..., K]`` from the last layer's output, see :class:`HeadRule`."""
    if rule.softcap is not None:
        logits = rule.softcap * torch.tanh(logits / rule.softcap)
    if rule.output == "sigmoid":
        logits = torch.sigmoid(logits)
    elif rule.output == "softmax":
        logits = torch.softmax(logits, dim=-1)
    elif rule.output == "log-odds":
        logits = logits[..., 1::2] - logits[..., 0::2]
    return logits[..., : rule.kept]


def _make_layer(index: int, tensors: Mapping[str, Tensor], size: int | None) -> nn.Linear:
    """Make layer ``index``; ``size`` is the width of the layer before it."""
    weight, bias = tensors.get(f"{index}.weight"), tensors.get(f"{index}.bias")
    if weight is None or weight.ndim != 2 or (size is not None and weight.shape[1] != size):
        found = "missing" if weight is None else f"{list(weight.shape)} after a layer of {size}"
        raise HeadError(f"the head's tensor {index}.weight is {found}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise HeadError(f"the head's tensor {index}.bias is {list(bias.shape)} and its weight {list(weight.shape)}")
    if not all(bool(torch.isfinite(each).all()) for each in (weight, bias) if each is not None):
        raise HeadError(f"layer {index} of the head holds a value that is not finite")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=torch.float32)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False)


def load_stored_head(folder: Path, rule: HeadRule) -> StoredHead:
    """Load the head of ``head.safetensors``.

    Raises:
        HeadError: the file is missing or unreadable, or its tensors do not fit the rule.
    """
    try:
        return StoredHead(load_file(folder / HEAD_FILE), rule)
    except FileNotFoundError:
        raise HeadError(f"{HEAD_FILE} is missing; import the model again") from None
    except SafetensorError as error:
        raise HeadError(f"{HEAD_FILE} cannot be read: {error}") from None
