"""Language models that judge by tokens, served without a manifest, against the published code over transformers."""

import math
import random
from pathlib import Path
from typing import Any

import judging
import pytest
import torch
from serve.plain_forms import make_pairs
from serve.plain_models import serve_plain
from serve.published_judges import PublishedJudge, PublishedVerifier
from transformers import AutoModelForCausalLM, AutoTokenizer, CohereConfig, Gemma2Config, GraniteConfig

FAMILIES = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "capped": {
        "kind": Gemma2Config,
        "final_logit_softcapping": 2.0,
        "attn_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 32,
    },
    "scaled": {"kind": CohereConfig, "logit_scale": 0.5},
    "divided": {"kind": GraniteConfig, "logits_scaling": 3.0},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_judge_is_served_as_published(tmp_path: Path, family: str) -> None:
    judging.write_language_model(tmp_path, **FAMILIES[family])
    asked, judge = make_pairs(8), PublishedJudge(tmp_path)
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
    (item,), judge = make_pairs(1), PublishedJudge(tmp_path, ("one", "2"))
    with serve_plain(tmp_path, form="pair-judge", tokens=("one", "2")) as client:
        (found,) = judging.ask(client, "/v1/preferences", items=[item], matrix=True)["data"]
    assert judging.logit(found["order_matrix"][0][1]) == pytest.approx(
        judge.compare(item["prompt"], *item["candidates"]), abs=judging.CLOSE
    )


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
