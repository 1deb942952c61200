"""Linear layers by oneDNN on AMD's CPUs, where torch's float32 products are MKL's, which runs there at half the speed.

Measured on an EPYC with one thread (``tests/bench/README.md``): 100 GFLOP/s by MKL, 230 by oneDNN, and a step of few
texts in a third of the time. torch has no switch for it; these are the operators to which torch.compile lowers a frozen
Linear. A weight is laid out anew once and the plain one let go, but for a head's that an embedding shares: SmolLM2 with
the starter artifacts holds 1.13 GB instead of 1.01, and 1.65 at its peak instead of 1.25.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CPU_INFO = Path("/proc/cpuinfo")
ROWS = 2048  # of the products that the layout is chosen for; it serves all others too


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
        """Opaque: its device and dtype can be asked."""
        return self.packed

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` to ``[..., out]``."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


def is_onednn_faster(model: Any) -> bool:
    """Whether a model's Linears are faster by oneDNN than as they are."""
    return bool(
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and CPU_INFO.exists()
        and "AuthenticAMD" in CPU_INFO.read_text()
    )


def replace_linears(model: Any) -> None:
    """Put oneDNN's Linears in the place of all plain ones; a weight that an embedding shares stays there too."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, OneDnnLinear(child))
