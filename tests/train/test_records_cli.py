"""``convert`` from the command line: what it writes, says, and exits with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tureen.records.reading import Reading
from tureen_train.records.cli import convert_command

DATA = Path(__file__).parent / "data"
DSP = str(DATA / "dsp_domains.cc-by-nc.json")


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command("convert")(convert_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_domain_becomes_lists_of_five(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run(DSP, out, "--domain", "academy")
    assert result.exit_code == 0, result.output
    assert f"wrote 2 records to {out}" in result.stdout
    assert "read 2 records, kept 2 with 8 comparable pairs" in result.stderr
    assert [len(item["text"]) for item in json.loads(out.read_text())] == [5, 5]
    assert list(Reading(out)) == list(Reading(DSP, domain="academy"))


def test_a_domain_becomes_pairs_without_the_excluded(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = run(DSP, out, "--domain", "academy", "--to-pairs", "--exclude", "normal", "--exclude", "business")
    assert result.exit_code == 0, result.output
    assert f"wrote 4 pairs to {out}" in result.stdout
    assert list(Reading(out)) == list(Reading(DSP, domain="academy", exclude=["normal", "business"], pairs=True))


def test_pairs_are_written_as_dsps_own_lists(tmp_path: Path) -> None:
    """Four items of two texts for a query, the domain's answer first, as its converter with `--to_pairs` makes them."""
    out = tmp_path / "out.json"
    result = run(DSP, out, "--domain", "academy", "--to-pairs", "--pairs-as", "text-score")
    assert result.exit_code == 0, result.output
    assert f"wrote 8 pairs to {out}" in result.stdout
    items = json.loads(out.read_text())
    assert [(len(item["text"]), item["score"]) for item in items] == [(2, [1.0, 0.0])] * 8
    assert [each.answers for each in Reading(out)] == [
        each.answers for each in Reading(DSP, domain="academy", pairs=True)
    ]
    assert "add --to-pairs" in run(DSP, out, "--domain", "academy", "--pairs-as", "text-score").stderr


def test_the_style_of_turns_is_chosen(tmp_path: Path) -> None:
    assert run(DATA / "hh.jsonl", tmp_path / "out.jsonl", "--style", "hh").exit_code == 0
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert first["text"][0].startswith("\n\nHuman: My wife")


def test_bad_records_are_told_of_and_do_not_stop_it_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"x": 1}\n{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    lenient = run(path, tmp_path / "out.json")
    assert lenient.exit_code == 0
    assert "records dropped, unknown form: 1" in lenient.stderr
    assert "in.jsonl:1: unknown form" in lenient.stderr
    strict = run(path, tmp_path / "strict.json", "--strict")
    assert strict.exit_code == 1
    assert f"error: {path}:1: unknown form" in strict.stderr
    assert not (tmp_path / "strict.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--domain", "humor"], "unknown domain 'humor'; known: academy"),
        (["--form", "tldr"], "unknown form 'tldr'"),
        (["--style", "x"], "unknown dialogue style 'x'"),
        (["--split", "train"], "has no splits"),
        (["--to-pairs"], "no pair is comparable"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_1(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = run(DSP, tmp_path / "out.json", *arguments)
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_step_labels_go_into_their_own_form_and_into_no_other(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"input": "2 + 2? Step 1: It is 4. ки", "label": "2 + 2? Step 1: It is 4. +"}\n')
    result = run(path, out, "--to-steps")
    assert result.exit_code == 0, result.output
    assert f"wrote 1 answers to {out}" in result.stdout
    assert list(Reading(out)) == list(Reading(path))
    assert "write them with --to-steps" in run(path, tmp_path / "other.jsonl").stderr
    assert "exclude each other" in run(path, out, "--to-steps", "--to-pairs").stderr


def test_domains_without_a_preferred_one_make_no_pair(tmp_path: Path) -> None:
    for options in ([], ["--to-pairs"]):
        result = run(DSP, tmp_path / "out.json", *options)
        assert result.exit_code == 1
        assert "no pair is comparable: name the preferred domain with --domain" in result.stderr
        assert not (tmp_path / "out.json").exists()


def test_answers_with_ratings_alone_are_refused_since_no_form_that_is_written_holds_them(tmp_path: Path) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    path.write_text("prompt,response,clarity\nWhy?,Because.,3\nHow?,So.,1\n")
    for options in ([], ["--to-pairs"]):
        result = run(path, out, *options)
        assert result.exit_code == 1
        assert "train on the file as it stands with loss.method: attributes (recipe my-ratings)" in result.stderr
        assert not out.exists()


def test_what_the_output_suits_is_said(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"prompt": "q", "completion": "a", "label": true}\n')
    assert "it has no comparable pair: it suits policy.method: sft" in run(path, out).stdout
    assert run(path, out, "--to-pairs").exit_code == 1
    assert "it suits reward models that rank" in run(DSP, out, "--domain", "academy").stdout


def test_columns_are_renamed_and_reversed_pairs_taken(tmp_path: Path) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    path.write_text("Frage,chosen,rejected,score_chosen,score_rejected\nWhy?,a,b,1,2\n")
    result = run(path, out, "--to-pairs", "--map", "Frage=prompt", "--reversed", "turn")
    assert result.exit_code == 0, result.output
    (record,) = Reading(out)
    assert (record.prompt[0]["content"], record.answers[0][0]["content"]) == ("Why?", "b")


def test_a_missing_input_is_one_sentence(tmp_path: Path) -> None:
    result = run(tmp_path / "gone.json", tmp_path / "out.json")
    assert result.exit_code == 1
    assert "gone.json: No such file" in result.stderr


def test_converting_needs_no_torch_and_starts_without_datasets() -> None:
    heavy = "{'torch', 'transformers', 'datasets'}"
    code = f"import sys, tureen_train.records.cli; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_its_options_are_these() -> None:
    app = typer.Typer()
    app.command("convert")(convert_command)
    options = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    known = {
        "--domain",
        "--exclude",
        "--to-pairs",
        "--to-steps",
        "--pairs-as",
        "--form",
        "--split",
        "--style",
        "--strict",
        "--map",
        "--reversed",
    }
    assert {name for name in options if name.startswith("--")} == known | {"--install-completion", "--show-completion"}
