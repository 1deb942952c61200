"""A policy as a judge by its likelihoods of A and B, against the probabilities of transformers itself."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, BadOption, Record
from tureen_core.adapter_files import write_adapter
from tureen_core.artifact import ArtifactError
from tureen_core.base import load_tokenizer
from tureen_train.judge.comparisons import TOO_LONG, Judgement, make_comparison
from tureen_train.judge.configuration import JudgeConfiguration, read_configuration
from tureen_train.judge.policy_judge import PolicyJudge
from tureen_train.judge.prompts import write_messages
from tureen_train.networks.reward_reader import ignore_progress

SHORT = """
style: likelihood
criterion: is it kind
system: ""
task: "{criterion}? {examples}"
example: "{request} {first} {second}"
"""


def record(first: str, second: str) -> Record:
    return Record((user_turn("why?"),), ((assistant_turn(first),), (assistant_turn(second),)), (UNLABELLED,) * 2)


@pytest.fixture
def asked(tmp_path: Path) -> JudgeConfiguration:
    (tmp_path / "short.yaml").write_text(SHORT)
    return read_configuration(str(tmp_path / "short.yaml"))


def probability(model: Any, folder: Path, asked: JudgeConfiguration, pair: Record) -> float:
    """The mean of both orders, each a softmax over the two letters."""
    tokenizer, found = load_tokenizer(folder), []
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "AB"]
    comparison = make_comparison(pair)
    for order, place in ((comparison, 0), (comparison.turned, 1)):
        text = tokenizer.apply_chat_template(write_messages(asked, [order]), tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        found.append(float(model(ids).logits[0, -1, letters].softmax(-1)[place].detach()))
    return sum(found) / 2


def test_the_probability_is_that_of_the_two_letters_in_both_orders(base: Path, asked: JudgeConfiguration) -> None:
    judge = PolicyJudge(str(base), asked)
    pairs = [record("the quick fox", "dogs"), record("dogs", "the quick fox"), record("same", "same")]
    seen: list[float] = []
    found = judge.judge_pairs(pairs, seen.append)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    assert found[0].share == pytest.approx(probability(model, base, asked, pairs[0]), abs=1e-5)
    assert found[0].share != pytest.approx(0.5, abs=1e-5)
    assert found[1].share == pytest.approx(1 - (found[0].share or 0), abs=1e-9)
    assert (found[2], len(seen)) == (Judgement(0.5), 3)


def test_an_adapter_and_an_expert_judge_with_their_base(base: Path, asked: JudgeConfiguration, tmp_path: Path) -> None:
    write_adapter(tiny.adapter("kind", 3), tmp_path / "adapter", str(base), dtype=torch.float32)
    expert = tiny.expert(tmp_path / "expert", base, "kind", 3)
    pair = record("the quick fox", "dogs")
    folders = [base, tmp_path / "adapter", expert.folder]
    bare, adapted, sealed = (
        PolicyJudge(str(folder), asked).judge_pairs([pair], ignore_progress)[0].share for folder in folders
    )
    assert adapted != pytest.approx(bare, abs=1e-4)
    assert sealed == pytest.approx(adapted, abs=1e-6)


def test_what_is_too_long_for_the_model_is_not_judged(base: Path, asked: JudgeConfiguration) -> None:
    judge = PolicyJudge(str(base), asked)
    found = judge.judge_pairs([record("x " * 5000, "dogs")], ignore_progress)
    assert found == [Judgement(None, TOO_LONG)]


def test_labels_of_several_tokens_and_reward_models_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"'Output \(a\)' is \d+ tokens .* the style `likelihood`"):
        PolicyJudge(str(base), read_configuration("evaluate/pref2A"))
    made = tiny.reward(tmp_path / "reward", base, "kind", 1)
    with pytest.raises(ArtifactError, match="is a reward model"):
        PolicyJudge(str(made.folder), read_configuration("likelihood/pref2A"))
