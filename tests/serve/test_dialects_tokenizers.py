"""Whose tokenizer turns a text into ids: a reward's, or a policy's."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import tiny
from serve.border import served
from serve.counting import CONTEXT, READING, RENDERER, CountingEngine
from tokenizers.processors import TemplateProcessing

from tureen_core.template import Renderer
from tureen_serve.dialects.tokenizers import describe_tokenizer

TALK = [{"role": "user", "content": "hi"}]


def call(path: str, engine: CountingEngine | None = None, aliases: Any = None, **body: Any) -> Any:
    with served(engine, aliases=aliases or {}) as client:
        return client.post(path, json=body) if body else client.get(path)


def other_tokenizer() -> Renderer:
    """One with a BOS that it puts before every text."""
    tok = copy.deepcopy(tiny.tokenizer())
    names = [("<|im_start|>", tok.convert_tokens_to_ids("<|im_start|>"))]
    tok.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=names)
    return Renderer(tok, READING)


def with_other_policy() -> CountingEngine:
    engine = CountingEngine("calm")
    engine.families = {"words": replace(engine.families["words"], renderer=other_tokenizer(), context=77)}
    return engine


@pytest.mark.parametrize("model", ["words", "words:calm=1", "words:playful"])
def test_a_policys_ids_are_those_that_completions_read(model: str) -> None:
    engine = with_other_policy()
    told = call("/tokenize", engine, model=model, prompt="the quick").json()
    assert told["tokens"] == other_tokenizer().tokenize_plain_prompt("the quick")
    assert (told["count"], told["max_model_len"]) == (len(told["tokens"]), 77)
    bare = call("/tokenize", engine, model=model, prompt="the quick", add_special_tokens=False).json()["tokens"]
    assert bare == told["tokens"][1:]
    opened = call("/tokenize", engine, model=model, messages=TALK).json()["tokens"]
    assert opened == other_tokenizer().tokenize_prompt(TALK)
    assert call("/detokenize", engine, model=model, tokens=bare).json() == {"prompt": "the quick"}


def test_a_rewards_ids_are_still_those_that_classify_reads() -> None:
    told = call("/tokenize", with_other_policy(), model="calm", prompt="the quick").json()
    assert (told["tokens"], told["max_model_len"]) == (RENDERER.tokenize_text("the quick"), CONTEXT)


def test_without_a_model_different_tokenizers_are_not_guessed() -> None:
    for body in ({"prompt": "hi"}, {}):
        reply = call("/tokenize" if body else "/tokenizer_info", with_other_policy(), **body)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "model"
    assert call("/tokenizer_info?model=words", with_other_policy()).status_code == 200
    alias = call("/tokenize", with_other_policy(), {"default": "calm"}, prompt="hi", add_special_tokens=False)
    assert alias.json()["tokens"] == RENDERER.render_text("hi", specials=False).ids


def test_without_a_model_one_tokenizer_of_all_needs_no_name() -> None:
    several = call("/tokenize", prompt="hi", add_special_tokens=False).json()
    assert several["tokens"] == RENDERER.tokenize_plain_prompt("hi", specials=False)


def test_a_name_that_nothing_has_is_not_found() -> None:
    reply = call("/tokenize", model="nothing", prompt="hi")
    assert (reply.status_code, reply.json()["error"]["param"]) == (404, "model")


def test_the_tokenizer_is_told_without_paths() -> None:
    told = call("/tokenizer_info?model=words").json()
    assert told == call("/vllm/tokenizer_info?model=words").json()
    assert (told["eos_token"], told["chat_template"]) == ("<|im_end|>", RENDERER.tokenizer.chat_template)
    assert told["tokenizer_class"] == type(RENDERER.tokenizer).__name__
    tok = copy.deepcopy(RENDERER.tokenizer)
    tok.init_kwargs |= {"name_or_path": "/models/tiny", "vocab_file": "/models/tiny/vocab.json", "added": {1: tok}}
    assert "/models" not in str({**describe_tokenizer(tok), "added": None})
