"""The probes that are chosen among the answers of a policy's data."""

from pathlib import Path

import pytest
import tiny

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import RecipeError
from tureen_train.policies.chosen_probes import choose_probes
from tureen_train.records.run_data import RunData


def record(*answers: str, scores: tuple[float, ...], prompt: str = "why?") -> Record:
    turn = ({"role": "user", "content": prompt},)
    return Record(turn, tuple(({"role": "assistant", "content": answer},) for answer in answers), scores)


def loaded(train: list[Record], held: list[Record]) -> RunData:
    return RunData(train, {"heldout": held} if held else {}, {})


def probes(base: Path, data: RunData, count: int, length: int = 64) -> list[str]:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base, max_length=length))
    return [probe.messages[-1]["content"] for probe in choose_probes(data, renderer, count)]


def test_probes_are_the_best_answers_held_out_ones_first(base: Path) -> None:
    held = [record("good", "bad", scores=(1.0, 0.0)), record("poor", "fine", scores=(float("nan"), 0.5), prompt="b")]
    train = [record("c", "d", scores=(0.0, 1.0), prompt="c")]
    assert probes(base, loaded(train, held), 3) == ["good", "fine", "d"]
    assert probes(base, loaded(train, held), 2) == ["good", "fine"]


def test_an_answer_that_does_not_fit_is_no_probe(base: Path) -> None:
    """Cut from the left its prompt is gone, and nobody can say where the answer begins."""
    held = [record("z" * 200, "bad", scores=(1.0, 0.0)), record("short", "bad", scores=(1.0, 0.0), prompt="b")]
    assert probes(base, loaded([], held), 2) == ["short"]
    with pytest.raises(RecipeError, match=r"policy\.max_length"):
        probes(base, loaded([], held[:1]), 2)


def test_records_with_only_a_prompt_are_no_probes(base: Path) -> None:
    bare = Record(({"role": "user", "content": "why?"},), (), ())
    assert probes(base, loaded([record("good", "bad", scores=(1.0, 0.0), prompt="b")], [bare]), 2) == ["good"]
    assert probes(base, loaded([bare], [bare]), 2) == []
