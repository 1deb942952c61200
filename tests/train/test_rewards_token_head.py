"""A head from two tokens' rows of the LM head, with tied and untied embeddings."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from train.tiny_runs import reward_run
from transformers import LlamaForCausalLM

from tureen_core.base import load_tokenizer
from tureen_train.config import RecipeError
from tureen_train.rewards.start import make_model


@pytest.fixture(scope="module")
def untied(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with an LM head of its own."""
    folder = tmp_path_factory.mktemp("untied")
    model = LlamaForCausalLM.from_pretrained(base)
    config = model.config
    config.tie_word_embeddings = False
    torch.manual_seed(4)
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [None, {"rank": 2, "targets": ["q_proj"]}], ids=["full", "lora"])
@pytest.mark.parametrize("which", ["base", "untied"])
def test_the_head_is_the_difference_of_two_rows(
    which: str, lora: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(which)
    run = reward_run(folder, tmp_path, loss={"method": "steps"}, model={"head": "tokens", "lora": lora})
    plus, minus = (load_tokenizer(folder)(sign)["input_ids"][0] for sign in "+-")
    rows = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).lm_head.weight
    state = make_model(run, folder).state_dict()
    (head,) = (each for name, each in state.items() if "score" in name and "original" not in name)
    assert torch.equal(head[0], (rows[plus] - rows[minus]).detach())


def test_a_text_of_several_tokens_starts_nothing(base: Path, tmp_path: Path) -> None:
    loss = {"method": "pair", "tokens": ["first answer", "B"]}
    with pytest.raises(RecipeError, match="loss.tokens: 'first answer' is .* tokens of this base"):
        make_model(reward_run(base, tmp_path, loss=loss, model={"head": "tokens"}), base)


def test_the_start_is_refused_where_there_are_no_tokens(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="model.head: tokens is for loss.method: pair or steps"):
        reward_run(base, tmp_path, model={"head": "tokens"})
