"""Merged experts on disk: opened by transformers and PEFT, and equal to the same sum made in memory."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from tureen_core.adapter_files import write_adapter
from tureen_core.soup import compute_delta, concatenate_adapters
from tureen_train.__main__ import app
from tureen_train.merging.rules import RULES

NAMES = ("first", "second")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["merge", *map(str, arguments)])


@pytest.fixture(scope="module")
def experts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("experts")
    for number, name in enumerate(NAMES):
        write_adapter(tiny.adapter(name, number + 1), folder / name, str(base))
    return {name: folder / name for name in NAMES}


def flags(experts: dict[str, Path]) -> list[object]:
    return [word for name, folder in experts.items() for word in ("--expert", f"{name}={folder}")]


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(torch.arange(3, 19).view(2, 8)).logits
    return found


def merged_in_memory(base: Path, rule: str, weights: tuple[float, float], density: float) -> Any:
    """The base with the merged difference added; only for rules without chance."""
    model = AutoModelForCausalLM.from_pretrained(base)
    stack = concatenate_adapters([tiny.adapter(name, number + 1) for number, name in enumerate(NAMES)])
    for path, stacked in stack.modules.items():
        deltas = torch.stack([compute_delta(stacked, row) for row in ((1.0, 0.0), (0.0, 1.0))])
        if rule == "delta":
            delta = compute_delta(stacked, weights)
        else:
            delta = RULES[rule](deltas, torch.tensor(weights), density)  # type: ignore[index]
        model.get_submodule(path).weight.data += delta
    return model


@pytest.mark.parametrize("rule", ["delta", "ties", "magnitude"])
def test_a_checkpoint_holds_the_merged_difference(
    rule: str, base: Path, experts: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    result = run(
        out, *flags(experts), "--weights", "first=0.7+second=0.3", "--how", rule, "--density", 0.3, "--to", "checkpoint"
    )
    assert result.exit_code == 0, result.output
    found = logits(AutoModelForCausalLM.from_pretrained(out))
    wanted = logits(merged_in_memory(base, rule, (0.7, 0.3), 0.3))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, logits(AutoModelForCausalLM.from_pretrained(base)), atol=1e-3)


@pytest.mark.parametrize("rule", ["delta", "ties", "dare", "dare-ties"])
def test_a_lora_of_full_rank_is_the_checkpoint(rule: str, base: Path, experts: dict[str, Path], tmp_path: Path) -> None:
    told = [*flags(experts), "--weights", "first=0.7+second=-0.3", "--how", rule]
    assert run(tmp_path / "whole", *told, "--to", "checkpoint").exit_code == 0
    result = run(tmp_path / "lora", *told, "--energy", 1)
    assert result.exit_code == 0, result.output
    assert "holds 1.0000 of it" in result.output
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "lora")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(model), logits(whole), atol=1e-4, rtol=1e-4)


def test_the_seed_decides_what_dare_keeps(experts: dict[str, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, *flags(experts), "--weights", "first=1", "--how", "dare", "--seed", seed, "--energy", 1)
    read = {name: (tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "abc"}
    assert read["a"] == read["b"] != read["c"]


def test_a_lora_that_holds_too_little_is_refused(experts: dict[str, Path], tmp_path: Path) -> None:
    told = [*flags(experts), "--weights", "first=0.5+second=0.5", "--how", "dare", "--rank", 1]
    result = run(tmp_path / "lora", *told)
    assert result.exit_code == 1
    assert "0.95 is asked: raise --rank or lower --accept-energy" in result.output
    assert not (tmp_path / "lora").exists()
    assert run(tmp_path / "lora", *told, "--accept-energy", 0.01).exit_code == 0


def test_experts_of_another_base_are_refused(experts: dict[str, Path], tmp_path: Path) -> None:
    other = tiny.base(tmp_path / "other", seed=5, hidden=64)
    result = run(tmp_path / "out", *flags(experts), "--weights", "first=1", "--base", other, "--to", "checkpoint")
    assert result.exit_code == 1
    assert "give their own base" in result.output


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--weights", "third=1"], "--weights: there is no --expert third=FOLDER; there are first, second"),
        (["--weights", "first=0"], "--weights: all are 0, which is the base itself"),
        (["--weights", "first"], "--weights: 'first' is not a weight"),
        (["--weights", "first=1", "--density", "0"], "--density: must be above 0 and at most 1, is 0"),
        (["--weights", "first=1", "--expert", "first=x"], "--expert first: two have this name"),
        (["--weights", "first=1", "--expert", "x"], "--expert 'x': write it as NAME=FOLDER"),
        (["--weights", "first=1", "--expert", "x=nowhere"], "--expert x: there is no folder nowhere"),
    ],
)
def test_what_cannot_be_merged_is_named(
    changed: list[str], said: str, experts: dict[str, Path], tmp_path: Path
) -> None:
    result = run(tmp_path / "out", *flags(experts), *changed)
    assert result.exit_code == 1
    assert said in result.output
    assert not (tmp_path / "out").exists()
