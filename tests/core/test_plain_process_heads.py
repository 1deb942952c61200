"""What a process reward model needs, and what is refused."""

from pathlib import Path
from typing import Any

import judging
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tureen.errors import Unprocessable
from tureen_core.inputs import render_steps
from tureen_core.plain.options import PlainError, PlainOptions, count_nouns
from tureen_core.plain.process_heads import write_bare_template
from tureen_core.plain.reward import make_plain_renderer, open_plain_reward
from tureen_core.reading import Reading

STEPS = ["12 + 30 = 42", "it is right", "so leaves fall"]
PROMPT = [{"role": "user", "content": "why so?"}]


def refuse(folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(PlainError, match=match):
        open_plain_reward(folder, PlainOptions(**options))


def test_a_mark_must_be_a_token(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path / "model", "кит")
    refuse(tmp_path / "model", "step_mark: ' ки' does not end with one token", form="prm-tokens")
    judging.write_qwen(tmp_path / "qwen")
    judging.write_tokenizer(tmp_path / "qwen")
    refuse(tmp_path / "qwen", "step_mark: '<extra_0>' does not end with one token", tokenizer=str(tmp_path / "model"))
    refuse(tmp_path / "qwen", "'<extra_7>' does not end", step_mark="<extra_7>")


@pytest.mark.parametrize("labels", [1, 3])
def test_two_labels_are_needed(tmp_path: Path, labels: int) -> None:
    judging.write_labelled(tmp_path / "trl", labels)
    told = count_nouns(labels, "label")
    refuse(tmp_path / "trl", f"score.weight has {told}; a process reward model has 2")
    judging.write_qwen(tmp_path / "qwen", labels)
    refuse(tmp_path / "qwen", f"score.2.weight has {told}")


def test_a_missing_head_is_refused_by_name(tmp_path: Path) -> None:
    judging.write_valued(tmp_path)
    refuse(tmp_path, "score.2.weight is missing", form="process-reward")
    refuse(tmp_path, "score.weight is missing", form="token-classification")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["v_head.summary.bias"]
    save_file(tensors, path)
    refuse(tmp_path, "v_head.summary.bias is missing")
    tok = AutoTokenizer.from_pretrained(tmp_path)
    tok.bos_token = None
    tok.save_pretrained(tmp_path)
    refuse(tmp_path, "begins with a BOS")


def test_an_option_that_a_form_does_not_take_is_refused(tmp_path: Path) -> None:
    judging.write_labelled(tmp_path)
    refuse(tmp_path, "tokens: the form token-classification of .* has none", tokens=("-", "+"))
    refuse(tmp_path, "output: the rewards of this form are log-odds", output="sigmoid")
    judging.write_language_model(tmp_path / "judge")
    refuse(tmp_path / "judge", "step_mark: the form pair-judge", form="pair-judge", step_mark="+")


def test_a_mark_inside_a_step_is_refused_or_plain_text(tmp_path: Path) -> None:
    tok = judging.write_tokenizer(tmp_path, "ки")
    tok.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    renderer = make_plain_renderer(tok, Reading(bos="none", eos="none", step_mark=" ки", step_layout="text"))
    with pytest.raises(Unprocessable, match="a step holds the mark 'ки'"):
        render_steps(renderer, PROMPT, ["ки one", "two"])
    renderer = make_plain_renderer(tok, Reading(bos="none", eos="none", step_mark="<extra_0>", step_layout="text"))
    read = render_steps(renderer, PROMPT, ["one <extra_0>", "two"])
    mark = tok.convert_tokens_to_ids("<extra_0>")
    assert [at + 1 for at, each in enumerate(read.ids) if each == mark] == read.ends
    assert read.normalised == ("control_marks",)
    assert tok.decode(read.ids[read.shared :]) == "one <extra_0><extra_0>two<extra_0>"


def test_a_long_prompt_loses_its_beginning_and_steps_stay(tmp_path: Path) -> None:
    tok = judging.write_tokenizer(tmp_path, "ки")
    tok.chat_template = write_bare_template(" ")
    long = [{"role": "user", "content": "why " * 60 + "now?"}]
    for layout in ("text", "parts"):
        reading = Reading(bos="add", eos="none", step_mark=" ки", step_layout=layout, step_break="\n", max_length=64)
        read = render_steps(make_plain_renderer(tok, reading), long, STEPS)
        whole = render_steps(make_plain_renderer(tok, reading.model_copy(update={"max_length": 512})), long, STEPS)
        assert (read.truncated, len(read.ids), whole.ids[0]) == (True, 64, tok.bos_token_id)
        assert read.ids == whole.ids[-64:]
        assert [len(whole.ids) - end for end in whole.ends] == [64 - end for end in read.ends]


def write_sentencepiece(folder: Path) -> Any:
    """A tokenizer as Mistral's: a space is the mark of a word's beginning, also before the first."""
    texts = {*"".join([*STEPS, "why so?"]), "▁", "\n", "▁ки", "▁+", "▁-", "▁it"}
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), *[(text, -float(9 - len(text))) for text in sorted(texts)]]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    raw.decoder = decoders.Metaspace()
    raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tok = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="<unk>")
    tok.save_pretrained(folder)
    return tok


def test_ids_are_those_of_math_shepherds_code_also_where_spaces_begin_words(tmp_path: Path) -> None:
    tok = write_sentencepiece(tmp_path)
    tok.chat_template = write_bare_template(" ")
    reading = Reading(bos="add", eos="none", step_mark=" ки", step_layout="text", step_break="\n")
    read = render_steps(make_plain_renderer(tok, reading), PROMPT, STEPS)
    ids = tok.encode("why so? " + "\n".join(f"{step} ки" for step in STEPS))
    assert read.ids == ids
    tag = tok.encode("ки")[-1]
    assert read.ends == [at + 1 for at, each in enumerate(ids) if each == tag]
    assert len(read.ends) == len(STEPS)
