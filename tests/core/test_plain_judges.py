"""What a language model needs to be a judge, and what is refused."""

from pathlib import Path
from typing import Any

import judging
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.reward import open_plain_reward


def refuse(folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(PlainError, match=match):
        open_plain_reward(folder, PlainOptions(**{"form": "pair-judge", **options}))


def test_a_token_must_be_one_token(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, "one", "\nA")
    refuse(tmp_path, r"tokens: 'first' is \d tokens", tokens=("first", "one"))
    refuse(tmp_path, "two tokens, as in --tokens A,B", tokens=("A",))
    refuse(tmp_path, "'one' and 'one' are the same token", tokens=("one", "one"))
    refuse(tmp_path, r"after the template's generation prompt 'A' is \['\\nA'\] and not \['A'\]")


def test_a_spelling_of_the_vocabulary_is_taken_as_it_is(tmp_path: Path) -> None:
    tok = judging.write_language_model(tmp_path)
    artifact = open_plain_reward(tmp_path, PlainOptions(form="pair-judge", tokens=("Ġ", "A")))
    assert artifact.plain is not None
    assert artifact.plain.head is not None
    weights = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    rows = [tok.convert_tokens_to_ids("A"), tok.convert_tokens_to_ids("Ġ")]
    assert artifact.plain.head.list_tensors()["0.weight"].equal(weights[rows])


def test_a_model_without_a_language_head_is_refused(tmp_path: Path) -> None:
    tok = judging.write_language_model(tmp_path / "whole", tie_word_embeddings=False)
    for kind in (AutoModel, AutoModelForSequenceClassification):
        folder = tmp_path / kind.__name__
        judging.save_model(kind.from_config, judging.make_config(tok), folder)
        tok.save_pretrained(folder)
        refuse(folder, "has no language head")
    path = tmp_path / "whole" / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, {"format": "pt"})
    refuse(tmp_path / "whole", "lm_head.weight is missing")


def test_probes_compare_two_answers(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path)
    artifact = open_plain_reward(tmp_path, PlainOptions(form="pair-judge"))
    assert artifact.manifest.input == "pair"
    found = [probe.scores["reward"] for probe in artifact.manifest.probes]
    assert len(set(found)) == len(found) == 12
    assert all(probe.rival != probe.messages for probe in artifact.manifest.probes)
