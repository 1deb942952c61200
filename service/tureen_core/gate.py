"""``gate.safetensors``: a gate's file beside an artifact's usual ones, so that other libraries open those as before.

Tensors, all float32: ``layers.<i>.weight`` and ``layers.<i>.bias`` of the MLP, ``transform`` ``[K, K]``. Its metadata
hold ``temperature`` and ``scale`` as decimal text.
"""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tureen.errors import Unprocessable
from tureen_core.heads import GatedHead
from tureen_core.reading import Rendered

GATE = "gate.safetensors"


class GateError(ValueError):
    """A gate's file cannot be used; the message says why."""


def select_prompt_ids(rendered: Rendered) -> list[int]:
    """The ids whose last hidden state a gate reads: what stands before the answer, its opening included.

    Raises:
        Unprocessable: that cannot be told: the text was cut, or a token spans the border to the answer.
    """
    if rendered.truncated:
        message = "the text was cut, so its prompt is not whole, which this model's gate reads; shorten it"
        raise Unprocessable(message, code="prompt_not_whole")
    if not rendered.shared:
        raise Unprocessable("this model's gate reads the prompt, and where the answer begins cannot be told")
    return rendered.ids[: rendered.shared]


def write_gate(gate: GatedHead, folder: Path) -> None:
    """Write a gate into a folder."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in gate.state_dict().items()}
    metadata = {"format": "pt", "temperature": repr(gate.temperature), "scale": repr(gate.scale)}
    save_file(tensors, folder / GATE, metadata=metadata)


def load_gate(folder: Path) -> GatedHead:
    """The gate in a folder, to be read and not trained.

    Raises:
        GateError: the file is missing or damaged, tensors do not make a gate, or a value is not finite.
    """
    tensors, metadata = _read(folder / GATE)
    try:
        gate = _shaped(tensors, float(metadata["temperature"]), float(metadata["scale"]))
        gate.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise GateError(f"{GATE} does not hold a gate: {' '.join(str(error).split())}") from error
    strange = next((name for name, tensor in gate.state_dict().items() if not bool(torch.isfinite(tensor).all())), None)
    if strange is not None or not (0 < gate.temperature < math.inf and math.isfinite(gate.scale)):
        raise GateError(f"{GATE}: {strange or 'temperature'} holds a value that cannot be used")
    return gate.eval().requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise GateError(f"{GATE} is missing or damaged: {error}") from error


def _shaped(tensors: dict[str, Tensor], temperature: float, scale: float) -> GatedHead:
    """An empty gate of the sizes that the tensors have."""
    depth = sum(name.endswith(".bias") for name in tensors) - 1
    width, hidden = tensors["layers.0.weight"].shape
    return GatedHead(hidden, len(tensors["transform"]), width, depth, temperature, scale)
