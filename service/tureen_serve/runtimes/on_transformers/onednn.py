"""Linear layers by oneDNN on AMD's CPUs. There torch's own float32 products use MKL, which has half the speed.

Measured on an EPYC with one thread (``tests/bench/README.md``): MKL computes 100 GFLOP/s and oneDNN 230, and a step of
a few texts takes a third of the time. torch has no option for this, so this module calls the operators that
torch.compile uses for a frozen Linear. Each weight is copied once to oneDNN's layout and the plain weight is freed,
except for a head's that an embedding shares. SmolLM2 with the starter artifacts takes 1.13 GB instead of 1.01, and
at its peak 1.65 GB instead of 1.25.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CPU_INFO = Path("/proc/cpuinfo")
ROWS = 2048  # oneDNN chooses the layout for inputs of this many rows; it is correct for any other number


class OneDnnLinear(nn.Linear):
    """A Linear for inference in float32, its weight in oneDNN's own layout."""

    packed: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.register_buffer("packed", packed, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight in oneDNN's layout. Only its device and dtype are meaningful."""
        return self.packed

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


def is_onednn_faster(model: Any) -> bool:
    """Tell whether a model's Linear layers are faster with oneDNN: in float32 on an AMD CPU."""
    return bool(
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and CPU_INFO.exists()
        and "AuthenticAMD" in CPU_INFO.read_text()
    )


def replace_linears(model: Any) -> None:
    """Replace every plain Linear of a model by oneDNN's. An embedding keeps a weight that it shares with a Linear."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, OneDnnLinear(child))
