"""A gate's file, what is refused of it, and the prompt that it reads."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tureen.errors import Unprocessable
from tureen_core.gate import GATE, GateError, load_gate, select_prompt_ids, write_gate
from tureen_core.heads import GatedHead
from tureen_core.reading import Rendered


def gate() -> GatedHead:
    torch.manual_seed(3)
    made = GatedHead(6, 3, width=5, depth=2, temperature=0.1, scale=2.5, dropout=0.3)
    made.transform[2] = torch.tensor([-0.025, 0.0, 0.0])
    return made


def test_a_gate_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = gate().eval()
    write_gate(made, tmp_path)
    found = load_gate(tmp_path)
    prompts = torch.randn(3, 6)
    assert torch.equal(found.coefficients(prompts), made.coefficients(prompts))
    assert (found.temperature, found.scale.item(), found.hidden, found.rewards) == (0.1, 2.5, 6, 3)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_its_tensors_have_the_names_that_are_documented(tmp_path: Path) -> None:
    write_gate(gate(), tmp_path)
    shapes = {name: list(tensor.shape) for name, tensor in load_file(tmp_path / GATE).items()}
    assert shapes == {
        "layers.0.weight": [5, 6],
        "layers.0.bias": [5],
        "layers.1.weight": [5, 5],
        "layers.1.bias": [5],
        "layers.2.weight": [3, 5],
        "layers.2.bias": [3],
        "transform": [3, 3],
    }


META = {"temperature": "10.0", "scale": "1.0"}


@pytest.mark.parametrize(
    ("changes", "metadata", "message"),
    [
        ({"transform": None}, META, "does not hold a gate: 'transform'"),
        ({"layers.0.weight": None}, META, r"does not hold a gate: 'layers\.0\.weight'"),
        ({"layers.1.bias": None}, META, "does not hold a gate"),
        ({"strange": torch.ones(1)}, META, "does not hold a gate.*strange"),
        ({"layers.2.weight": torch.ones(4, 5)}, META, "does not hold a gate.*size mismatch"),
        ({"transform": torch.full((3, 3), float("nan"))}, META, "transform holds a value that cannot be used"),
        ({"layers.1.bias": torch.full((5,), float("inf"))}, META, r"layers\.1\.bias holds a value"),
        ({}, {}, "does not hold a gate: 'temperature'"),
        ({}, {**META, "temperature": "hot"}, "does not hold a gate: could not convert"),
        ({}, {**META, "temperature": "0"}, "temperature holds a value that cannot be used"),
        ({}, {**META, "scale": "nan"}, "scale holds a value that cannot be used"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_file_that_holds_no_gate_is_refused(
    changes: dict[str, Tensor | None], metadata: dict[str, str], message: str, tmp_path: Path
) -> None:
    write_gate(gate(), tmp_path)
    tensors: dict[str, Tensor | None] = {**load_file(tmp_path / GATE), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, tmp_path / GATE, metadata=metadata)
    with pytest.raises(GateError, match=message):
        load_gate(tmp_path)


def test_a_missing_or_damaged_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"gate\.safetensors is missing or damaged"):
        load_gate(tmp_path)
    (tmp_path / GATE).write_bytes(b"not tensors")
    with pytest.raises(GateError, match=r"gate\.safetensors is missing or damaged"):
        load_gate(tmp_path)


def test_a_gate_reads_what_stands_before_the_answer() -> None:
    assert select_prompt_ids(Rendered([5, 6, 7, 8], shared=3)) == [5, 6, 7]


def test_a_text_whose_prompt_cannot_be_told_is_refused() -> None:
    with pytest.raises(Unprocessable, match="a token spans the end of it and the answer"):
        select_prompt_ids(Rendered([5, 6, 7]))
    with pytest.raises(Unprocessable, match="shorten it") as caught:
        select_prompt_ids(Rendered([5, 6, 7], truncated=True))
    assert caught.value.code == "prompt_not_whole"


def test_a_trained_scale_is_kept_to_the_bit_where_scales_always_stood(tmp_path: Path) -> None:
    """So that artifacts whose scale was not trained load as before, and their readers read new ones."""
    made = gate().eval()
    with torch.no_grad():
        made.scale.mul_(0.54321)
    write_gate(made, tmp_path)
    with safe_open(tmp_path / GATE, framework="pt") as file:
        assert float(file.metadata()["scale"]) == made.scale.item()
        assert "scale" not in file.keys()  # noqa: SIM118
    assert torch.equal(load_gate(tmp_path).scale, made.scale)


def test_a_gate_that_reads_the_end_of_the_last_turn_gets_the_ids_before_the_opening() -> None:
    assert select_prompt_ids(Rendered([5, 6, 7, 8, 9], shared=4), opening=(7, 8)) == [5, 6]


@pytest.mark.parametrize("shared", [3, 2])
def test_a_prompt_that_does_not_end_with_the_opening_is_refused(shared: int) -> None:
    with pytest.raises(Unprocessable, match="does not open an answer"):
        select_prompt_ids(Rendered([7, 8, 6, 9], shared=shared), opening=(7, 8))
