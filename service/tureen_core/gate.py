"""``gate.safetensors``: the file of a gate. Other libraries ignore it and open the artifact's other files as usual.

Its tensors are float32: ``layers.<i>.weight`` and ``layers.<i>.bias`` of the MLP, and ``transform`` ``[K, K]``. Its
metadata hold ``temperature`` and ``scale`` as decimal text.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tureen.errors import Unprocessable
from tureen_core.heads import GatedHead
from tureen_core.reading import Rendered

GATE = "gate.safetensors"
SCALE = "scale"


class GateError(ValueError):
    """A gate's file cannot be used. The message says why."""


def select_prompt_ids(rendered: Rendered, opening: Sequence[int] = ()) -> list[int]:
    """Take the ids before the answer, with the opening of its turn. A gate reads the hidden state of the last one.

    Args:
        opening: the ids of the opening, where the gate reads at the token before it; see ``HeadRule.gate_at``.

    Raises:
        Unprocessable: the text was cut, a token spans the border between the prompt and the answer, or the prompt does
            not end with the opening.
    """
    if rendered.truncated:
        message = "the text is too long and was cut, but this model's gate reads the whole prompt: shorten it"
        raise Unprocessable(message, code="prompt_not_whole")
    if not rendered.shared:
        raise Unprocessable("this model's gate reads the prompt, but a token spans the end of it and the answer")
    prompt = rendered.ids[: rendered.shared]
    if not opening:
        return prompt
    before = len(prompt) - len(opening)
    if before <= 0 or prompt[before:] != list(opening):
        raise Unprocessable("this model's gate reads the end of the last turn, and the text does not open an answer")
    return prompt[:before]


def write_gate(gate: GatedHead, folder: Path) -> None:
    """Write a gate to ``gate.safetensors`` in a folder."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in gate.state_dict().items()}
    scale = float(tensors.pop(SCALE))
    metadata = {"format": "pt", "temperature": repr(gate.temperature), SCALE: repr(scale)}
    save_file(tensors, folder / GATE, metadata=metadata)


def load_gate(folder: Path) -> GatedHead:
    """Load the gate of a folder, without gradients.

    Raises:
        GateError: the file is missing or damaged, its tensors are not a gate's, or a value is not finite.
    """
    tensors, metadata = _read(folder / GATE)
    try:
        gate = _shaped(tensors, float(metadata["temperature"]), float(metadata[SCALE]))
        gate.load_state_dict({**tensors, SCALE: gate.scale.detach()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise GateError(f"{GATE} does not hold a gate: {' '.join(str(error).split())}") from error
    strange = next((name for name, tensor in gate.state_dict().items() if not bool(torch.isfinite(tensor).all())), None)
    if strange is not None or not 0 < gate.temperature < math.inf:
        raise GateError(f"{GATE}: {strange or 'temperature'} holds a value that cannot be used")
    return gate.eval().requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise GateError(f"{GATE} is missing or damaged: {error}") from error


def _shaped(tensors: dict[str, Tensor], temperature: float, scale: float) -> GatedHead:
    """Make a gate of the tensors' sizes, with weights that are still to be loaded."""
    depth = sum(name.endswith(".bias") for name in tensors) - 1
    width, hidden = tensors["layers.0.weight"].shape
    return GatedHead(hidden, len(tensors["transform"]), width, depth, temperature, scale)
