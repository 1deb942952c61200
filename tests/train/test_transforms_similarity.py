"""``tureen-train similarity``: what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from train import tiny_encoder
from typer.testing import CliRunner

from tureen.records.reading import Reading
from tureen_train.__main__ import app
from tureen_train.networks.sentence_encoder import Encoder, add_similarity, open_encoder, read_cosines


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(bert: Path) -> Encoder:
    return open_encoder(str(bert))


def test_the_command_writes_records_that_carry_their_cosines(bert: Path, encoder: Encoder, tmp_path: Path) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    text = [f"\n\nHuman: why\n\nAssistant: {answer}" for answer in ("the fox", "leaves fall", "do fall")]
    source.write_text(json.dumps([{"text": text, "score": [2, 1, 0]}]))
    outcome = CliRunner().invoke(app, ["similarity", str(source), str(target), "--encoder", str(bert)])
    assert outcome.exit_code == 0, outcome.output
    (read,) = Reading(target)
    assert read.meta["similarity"]["encoder"] == encoder.name
    expected = read_cosines(add_similarity(list(Reading(source)), encoder)[0])
    assert read_cosines(read).tolist() == expected.tolist()
    CliRunner().invoke(
        app, ["similarity", str(target), str(tmp_path / "pairs.jsonl"), "--to-pairs", "--encoder", str(bert)]
    )
    assert len(list(Reading(tmp_path / "pairs.jsonl"))) == 3


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["similarity", str(tmp_path), str(tmp_path / "out"), "--encoder", "nowhere"])
    assert outcome.exit_code == 1
    assert "'nowhere' is neither" in outcome.output
