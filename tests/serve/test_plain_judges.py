"""Language models that judge by tokens, served without a manifest, against the published code over transformers."""

import math
import random
from pathlib import Path
from typing import Any

import judging
import pytest
import torch
from serve.plain_models import serve_plain
from transformers import AutoModelForCausalLM, AutoTokenizer, CohereConfig, Gemma2Config, GraniteConfig

FRAME = "[CONTEXT] {context} [RESPONSE A] {first} [RESPONSE B] {second} \n"
PLAIN = (  # RLHFlow's, for the context
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
    "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)
FAMILIES = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "capped": {"kind": Gemma2Config, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 32},
    "scaled": {"kind": CohereConfig, "logit_scale": 0.5},
    "divided": {"kind": GraniteConfig, "logits_scaling": 3.0},
}


class PublishedJudge:
    """RLHFlow's pair model as its model card uses it."""

    def __init__(self, folder: Path, tokens: tuple[str, str] = ("A", "B")) -> None:
        self.tokenizer, self.plain = (AutoTokenizer.from_pretrained(folder) for _ in range(2))
        self.plain.chat_template = PLAIN
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.ids = [self.tokenizer.encode(each, add_special_tokens=False)[0] for each in tokens]

    def compare(self, context: list[dict[str, str]], first: str, second: str) -> float:
        """The log-odds that the first is better."""
        told = self.plain.apply_chat_template(context, tokenize=False)
        message = {"role": "user", "content": FRAME.format(context=told, first=first, second=second)}
        text = self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        text = text.replace(self.tokenizer.bos_token, "")
        ids = self.tokenizer.encode(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            a, b = self.model(ids).logits[0, -1, self.ids].tolist()
        return float(a - b)


def items(count: int) -> list[dict[str, Any]]:
    """Conversations of one or three turns with two answers each."""
    rng = random.Random(7)
    made: list[dict[str, Any]] = []
    for number in range(count):
        roles = ["user", "assistant", "user"] if number % 3 == 0 else ["user"]
        prompt = [{"role": role, "content": judging.say(rng)} for role in roles]
        made.append({"prompt": prompt, "candidates": [judging.say(rng, 30), judging.say(rng, 30)]})
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_judge_is_served_as_published(tmp_path: Path, family: str) -> None:
    judging.write_language_model(tmp_path, **FAMILIES[family])
    asked, judge = items(50 if family == "tied" else 8), PublishedJudge(tmp_path)
    with serve_plain(tmp_path, form="pair-judge", objectives=("better",)) as client:
        (card,) = client.get("/v1/models").json()["data"]
        data = judging.ask(client, "/v1/preferences", items=asked, matrix=True)["data"]
    assert (card["id"], card["calibrated"]) == ("better", False)
    found, wanted = [], []
    for item, each in zip(asked, data, strict=True):
        first, second = item["candidates"]
        found += [judging.logit(each["order_matrix"][0][1]), judging.logit(each["order_matrix"][1][0])]
        wanted += [judge.compare(item["prompt"], first, second), judge.compare(item["prompt"], second, first)]
    judging.compare(found, wanted, spread=0.02)


def test_another_pair_of_tokens_is_named(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, "one")
    (item,), judge = items(1), PublishedJudge(tmp_path, ("one", "2"))
    with serve_plain(tmp_path, form="pair-judge", tokens=("one", "2")) as client:
        (found,) = judging.ask(client, "/v1/preferences", items=[item], matrix=True)["data"]
    assert judging.logit(found["order_matrix"][0][1]) == pytest.approx(
        judge.compare(item["prompt"], *item["candidates"]), abs=judging.CLOSE
    )


class PublishedVerifier:
    """A generative verifier: the probability of its token after the question of GenRM."""

    def __init__(self, folder: Path, tokens: tuple[str, ...]) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.ids = self.tokenizer.convert_tokens_to_ids(tokens)

    def score(self, question: str, answer: str) -> float:
        """P(Yes), or P(Yes) / (P(Yes) + P(No))."""
        content = f"{question}\n{answer}\nIs the answer correct (Yes/No)?"
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        with torch.no_grad():
            found = self.model(ids).logits[0, -1].softmax(-1)[self.ids].tolist()
        return float(found[0] / sum(found)) if len(found) > 1 else float(found[0])


@pytest.mark.parametrize("tokens", [("Yes",), ("No", "Yes")])
@pytest.mark.parametrize("family", ["tied", "capped"])
def test_a_verifier_is_served_as_published(tmp_path: Path, family: str, tokens: tuple[str, ...]) -> None:
    judging.write_language_model(tmp_path, "Yes", "No", **FAMILIES[family])
    verifier, rng = PublishedVerifier(tmp_path, tokens[::-1]), random.Random(3)
    asked: list[dict[str, Any]] = [
        {"prompt": judging.say(rng), "candidates": [judging.say(rng, 30), judging.say(rng, 30)]} for _ in range(25)
    ]
    with serve_plain(tmp_path, form="gen-verifier", tokens=() if tokens == ("Yes",) else tokens) as client:
        data = judging.ask(client, "/v1/score", items=asked)["data"]
    found = [each["scores"]["reward"]["raw"] for item in data for each in item["candidates"]]
    wanted = [verifier.score(item["prompt"], answer) for item in asked for answer in item["candidates"]]
    judging.compare(list(map(math.log, found)), list(map(math.log, wanted)), spread=0.02)


def test_a_verifiers_own_text_and_log_odds(tmp_path: Path) -> None:
    judging.write_language_model(tmp_path, " Yes", " No")
    template = tmp_path / "verifier.jinja"
    template.write_text("Q: {{ messages[0]['content'] }}\nA: {{ messages[-1]['content'] }}\nRight?")
    tokens = (" No", " Yes")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    options = {"form": "gen-verifier", "tokens": tokens, "output": "log-odds", "template": str(template)}
    with serve_plain(tmp_path, **options) as client:
        reply = judging.ask(client, "/v1/score", items=[{"prompt": "why?", "candidates": ["so", "a fox"]}])
    for answer, each in zip(["so", "a fox"], reply["data"][0]["candidates"], strict=True):
        with torch.no_grad():
            ids = tokenizer(f"Q: why?\nA: {answer}\nRight?", return_tensors="pt")["input_ids"]
            no, yes = model(ids).logits[0, -1, tokenizer.convert_tokens_to_ids(tokens)].tolist()
        assert each["scores"]["reward"]["raw"] == pytest.approx(yes - no, abs=judging.CLOSE)
