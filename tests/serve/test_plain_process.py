"""Process reward models of others, served without a manifest, against their published code over transformers."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import judging
import pytest
import torch
from serve.plain_models import serve_plain
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

Score = Callable[[str, list[str]], list[float]]  # logits of the steps' probabilities


def items(count: int) -> list[dict[str, Any]]:
    rng = random.Random(11)
    return [
        {"prompt": judging.say(rng), "steps": [judging.say(rng, 20) for _ in range(rng.randint(1, 4))]}
        for _ in range(count)
    ]


def compare(folder: Path, score: Score, count: int = 50, **options: Any) -> None:
    """All steps of the items, over HTTP and by the published code."""
    asked = items(count)
    with serve_plain(folder, **options) as client:
        data = judging.ask(client, "/v1/score", items=asked)["data"]
    found = [[each["scores"]["reward"]["raw"] for each in item["candidates"]] for item in data]
    wanted = [score(item["prompt"], item["steps"]) for item in asked]
    judging.compare(sum(found, []), sum(wanted, []))
    for item, row in zip(data, wanted, strict=True):
        assert item["summary"]["reward"]["min"] == pytest.approx(min(torch.tensor(row).sigmoid().tolist()), abs=1e-4)


def pair_logit(logits: Any) -> Any:
    """The logit of the first of two tokens' softmax, as the published codes take it."""
    return torch.logit(logits.double().softmax(-1)[..., 0])


def test_math_shepherd(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, "ки")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    candidates = tokenizer.convert_tokens_to_ids(["+", "-"])
    tag = tokenizer.encode("ки")[-1]

    def score(question: str, steps: list[str]) -> list[float]:
        output = "\n".join(f"{step} ки" for step in steps)
        ids = torch.tensor([tokenizer.encode(f"{question} {output}")])
        with torch.no_grad():
            logits = model(ids).logits[:, :, candidates]
        found: list[float] = pair_logit(logits)[ids == tag].tolist()
        return found

    compare(tmp_path, score, form="prm-tokens", tokens=("-", "+"), step_mark=" ки")


def test_rlhflow(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, tie_word_embeddings=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]

    def score(question: str, steps: list[str]) -> list[float]:
        conversation, found = [], []
        for number, step in enumerate(steps):
            conversation.append({"role": "user", "content": step if number else f"{question} {step}"})
            conversation.append({"role": "assistant", "content": "+"})
            ids = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
            with torch.no_grad():  # +, the end of the turn and its line break follow what predicts the +
                found.append(float(pair_logit(model(ids).logits[0, -4, candidates])))
        return found

    compare(tmp_path, score, form="prm-turns")


def test_qwen(tmp_path: Path) -> None:
    _, head = judging.write_qwen(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    backbone = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()

    def score(question: str, steps: list[str]) -> list[float]:
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        ids = tokenizer.encode(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            logits = head(backbone(ids).last_hidden_state)
        found: list[float] = pair_logit(logits.flip(-1))[ids == tokenizer.encode("<extra_0>")[0]].tolist()
        return found

    compare(tmp_path, score)


def test_trl(tmp_path: Path) -> None:
    judging.write_labelled(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()

    def score(question: str, steps: list[str]) -> list[float]:
        separator = tokenizer.encode("\n", add_special_tokens=False)
        ids = [tokenizer.bos_token_id, *tokenizer(question, add_special_tokens=False)["input_ids"]]
        ends = []
        for step in steps:
            ids += tokenizer(step, add_special_tokens=False)["input_ids"] + separator
            ends.append(len(ids) - 1)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, ends]
        found: list[float] = pair_logit(logits.flip(-1)).tolist()
        return found

    compare(tmp_path, score)


def test_skywork(tmp_path: Path) -> None:
    head = judging.write_valued(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()

    def score(question: str, steps: list[str]) -> list[float]:
        ids = tokenizer.encode(tokenizer.bos_token + question + "\n")
        ends = []
        for step in steps:
            ids += [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
            ends.append(len(ids) - 1)
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, ends]
            probabilities = head(hidden).squeeze(-1).sigmoid()
        found: list[float] = torch.logit(probabilities.double()).tolist()
        return found

    compare(tmp_path, score)
