"""How heads of a batch are weighed, whatever pools the hidden states."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from tureen_core.artifact import Objective, read_weights
from tureen_core.heads import LinearHead
from tureen_serve.runtimes.contract import Row
from tureen_serve.runtimes.readout import ReadOut, make_readout, read_rewards

STATES = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def head(*rows: list[float], pooling: str = "eos") -> ReadOut:
    linear = LinearHead(4, len(rows)).requires_grad_(False)
    linear.weight.copy_(torch.tensor(rows))
    return ReadOut(linear, pooling, False)  # type: ignore[arg-type]


READOUTS = {
    "kind": head([1.0, 0.0, 0.0, 0.0]),
    "wit": head([0.0, 2.0, 0.0, 0.0]),
    "both": head([0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, -1.0], pooling="mean"),
}


def test_each_row_is_read_by_its_own_heads_in_order() -> None:
    blends = [(("kind", 1.0),), (("both", 1.0),), (("kind", 1.0),), (("kind", 0.5), ("wit", -1.0)), (("wit", 1.0),)]
    found = read_rewards([Row((1,), blend) for blend in blends], READOUTS, lambda picks, _: STATES[picks])
    expected = [
        (STATES[0, 0],),
        (STATES[1, 2], -STATES[1, 3]),
        (STATES[2, 0],),
        (0.5 * STATES[3, 0] - 2 * STATES[3, 1],),
        (2 * STATES[4, 1],),
    ]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx([float(each) for each in other], abs=1e-6)


def test_rows_of_one_blend_are_pooled_together_as_their_head_says() -> None:
    asked: list[tuple[list[int], str]] = []

    def pooled(picks: list[int], like: ReadOut) -> Tensor:
        asked.append((picks, like.pooling))
        return STATES[picks]

    names = ["kind", "both", "kind", "both", "kind"]
    read_rewards([Row((index,), ((name, 1.0),)) for index, name in enumerate(names)], READOUTS, pooled)
    assert asked == [([0, 2, 4], "eos"), ([1, 3], "mean")]


def test_a_head_keeps_the_rows_that_objectives_read(tmp_path: Path) -> None:
    """Two artifacts whose heads have unequal rows left over can be blended."""
    base = tiny.base(tmp_path / "base")
    artifact = tiny.reward(tmp_path / "many", base, "many", 1, objectives=["a", "b", "c"], pooling="last")
    narrow = artifact.manifest.model_copy(update={"objectives": [Objective(name="b", column=1)]})
    weight = read_weights(artifact)[1]
    assert weight is not None
    found = make_readout(type(artifact)(artifact.folder, narrow), torch.device("cpu"))
    assert isinstance(found.head, LinearHead)
    assert torch.equal(found.head.weight, weight[:2])
    assert (found.pooling, found.eos_appended) == ("last", artifact.manifest.reading.eos == "append")
