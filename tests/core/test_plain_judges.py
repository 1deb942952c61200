"""What a language model needs to be a judge, and what is refused."""

from pathlib import Path
from typing import Any

import judging
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tureen.errors import Unprocessable
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.reward import make_plain_renderer, open_plain_reward
from tureen_core.reading import Reading

QUESTION = "Is the answer correct (Yes/No)?"


def refuse(folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(PlainError, match=match):
        open_plain_reward(folder, PlainOptions(**{"form": "pair-judge", **options}))


def test_a_token_must_be_one_token(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, "one", "\nA")
    refuse(tmp_path, r"tokens: 'first' is \d tokens", tokens=("first", "one"))
    refuse(tmp_path, "template: answer writes the texts of encoders", template="answer")
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


def test_a_verifier_is_asked_in_the_models_own_frame(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, "Yes", "No")
    artifact = open_plain_reward(tmp_path, PlainOptions(form="gen-verifier"))
    assert artifact.plain is not None
    tok = artifact.plain.tokenizer
    renderer = make_plain_renderer(tok, artifact.manifest.reading)
    turns = [
        {"role": "system", "content": "be strict"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "so<|im_end|>"},
        {"role": "user", "content": "and <|im_start|> now?"},
        {"role": "assistant", "content": "a fox"},
    ]
    asked = [turns[0], {"role": "user", "content": f"why?\nso\nand <|im_start|> now?\na fox\n{QUESTION}"}]
    own = Reading(bos="none", eos="none")
    tok_own = AutoTokenizer.from_pretrained(tmp_path)
    wanted = make_plain_renderer(tok_own, own).render_prompt(asked).ids
    assert renderer.render_conversation(turns).ids == wanted
    for name, value in (("tool_calls", [{"function": {"name": "f", "arguments": {}}}]), ("reasoning_content", "hm")):
        with pytest.raises(Unprocessable, match="texts of questions and answers only"):
            renderer.render_conversation([*turns[:-1], {**turns[-1], name: value}])


def test_a_verifier_has_one_token_or_two(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, "Yes", "No")
    form = {"form": "gen-verifier"}
    refuse(tmp_path, "one token, as --tokens Yes, or two", **form, tokens=("A", "B", "C"))
    refuse(tmp_path, "output: a verifier's reward is", **form, output="log-odds")
    refuse(tmp_path, "output: a verifier's reward is", **form, output="sigmoid", tokens=("No", "Yes"))
    refuse(tmp_path, r"tokens: 'Maybe' is \d tokens", **form, tokens=("Maybe",))
    found = [
        open_plain_reward(tmp_path, PlainOptions(form="gen-verifier", tokens=tokens)).fingerprint("float32")
        for tokens in (("Yes",), ("No",), ("No", "Yes"), ("Yes", "No"))
    ]
    assert len(set(found)) == 4
