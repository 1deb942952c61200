"""Configurations of judges: the packaged ones, own files, and what is refused."""

from pathlib import Path

import pytest
import yaml

from tureen_train.config import RecipeError
from tureen_train.config.preferences import read_rlphf_sentences
from tureen_train.judge.configuration import (
    format_configuration,
    list_criteria,
    list_styles,
    read_configuration,
)


def test_each_packaged_style_asks_by_each_packaged_criterion() -> None:
    poles = {pole for dimension in read_rlphf_sentences().values() for pole in dimension}
    assert set(list_criteria()) == {f"pref{pole[1:]}" for pole in poles} | {"helpfulness"}
    for style in list_styles():
        read = [read_configuration(f"{style}/{criterion}") for criterion in list_criteria()]
        assert {each.pole for each in read} == poles | {""}
        assert all([each.verdict for each in one.demonstrations] == ["A", "B", "tie"] for one in read)
        assert len({each.criterion for each in read}) == len(read)


def test_the_styles_are_as_published() -> None:
    annotate, evaluate = read_configuration("annotate/pref1A"), read_configuration("pref1A")
    assert (annotate.batch, annotate.temperature, annotate.max_tokens, annotate.reasons) == (5, 1.0, 250, False)
    assert (evaluate.batch, evaluate.temperature, evaluate.max_tokens, evaluate.reasons) == (1, 0.1, 512, True)
    assert "tie" in evaluate.labels
    assert "tie" not in annotate.labels


def test_a_criterion_may_be_a_sentence_and_a_file_changes_what_it_names(tmp_path: Path) -> None:
    said = read_configuration(" Which rhymes and/or sings better? ", orders="once", batch=None)
    assert (said.criterion, said.demonstrations, said.orders) == ("Which rhymes and/or sings better?", [], "once")
    path = tmp_path / "mine.yaml"
    path.write_text("style: annotate\ncriterion: pref2A\nbatch: 3\nprice: {read: 2.5, written: 10}\n")
    mine, packaged = read_configuration(str(path), temperature=0.5), read_configuration("annotate/pref2A")
    assert (mine.name, mine.batch, mine.temperature, mine.pole) == ("mine", 3, 0.5, "P2A")
    assert (mine.criterion, mine.system) == (packaged.criterion, packaged.system)


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    for name in ("annotate/pref3D", "evaluate/helpfulness"):
        wanted = read_configuration(name)
        values = yaml.safe_load(format_configuration(wanted))
        path = tmp_path / "shown.yaml"
        path.write_text(yaml.safe_dump(values))
        assert read_configuration(str(path)) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("style: shout\n", "style: 'shout' is none of annotate, evaluate, likelihood"),
        (
            "criterion: pref4A\n",
            "criterion: 'pref4A' is none of helpfulness, pref1A, .*; name one, or write a sentence",
        ),
        ("criterion: is it kind\nspeed: 3\n", "speed: Extra inputs"),
        ("criterion: is it kind\nbatch: 2\n", "batch: reasons are written about one pair"),
        ("criterion: is it kind\nexample: '{first}'\n", "example: it must name {request}"),
        ("criterion: is it kind\ntask: 'go'\n", "task: it must name {examples}"),
        ("criterion: is it kind\nsystem: ''\n", "system: it must name {criterion}"),
        ("criterion: is it kind\nlabels: {A: one, B: ONE}\n", "labels: give each verdict a word of its own"),
        ("criterion: is it kind\nlabels: {A: one}\n", "labels: give the words of A and of B"),
        ("style: evaluate\n", "criterion: Field required"),
        ("- 1\n", "a mapping of keys"),
        ("a: [\n", "cannot read it as YAML"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "judge.yaml").write_text(text)
    with pytest.raises(RecipeError, match=told):
        read_configuration(str(tmp_path / "judge.yaml"))


def test_names_that_nothing_has_are_refused(tmp_path: Path) -> None:
    for source in ("pref4A", "annotate/pref4A", "shout/pref1A", str(tmp_path / "none.yaml")):
        with pytest.raises(RecipeError):
            read_configuration(source)
