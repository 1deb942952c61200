"""A class as a whole: what may be padded, and which ids have no reward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from classifiers import make_tokenizer, write_model
from transformers import AutoModelForSequenceClassification, FNetConfig, FNetForSequenceClassification

from tureen.errors import Unprocessable
from tureen_core.head_rule import HeadRule
from tureen_core.special_tokens import TokenizerFrame
from tureen_serve.runtimes.contract import BatchLimits, Rewards, Row
from tureen_serve.runtimes.on_transformers.class_scorer import ClassScorer

ONE = (("model", 1.0),)


def scorer(folder: Path, frame: TokenizerFrame | None = None, **changes: Any) -> ClassScorer:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=changes.get("dtype", torch.float32))
    return ClassScorer(model, HeadRule(kind="model"), frame, BatchLimits())


def values(found: Any) -> list[float]:
    assert isinstance(found, Rewards)
    return list(found.values)


def test_an_encoder_pads_in_any_dtype(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bert", "bert")
    for dtype in (torch.float32, torch.bfloat16):
        assert scorer(folder, dtype=dtype).description == "its own class, padded"


def test_a_class_without_a_mask_runs_one_by_one() -> None:
    torch.manual_seed(0)
    config = FNetConfig(vocab_size=99, hidden_size=16, num_hidden_layers=1, intermediate_size=16, num_labels=1)
    found = ClassScorer(FNetForSequenceClassification(config), HeadRule(kind="model"), None, BatchLimits())
    assert "one by one: it does not mask padding" in found.description
    rows = [Row((5, 6, 7), ONE), Row((8, 9, 10, 11, 12), ONE)]
    assert [values(each) for each in found.run(rows)] == [values(found.run([row])[0]) for row in rows]


class ReadsPadding(torch.nn.Module):
    """A class that takes a mask and averages over padding too."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.config = FNetConfig(vocab_size=99, num_labels=1)
        self.masked = masked

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        kept = input_ids * attention_mask if self.masked else input_ids
        return type("Out", (), {"logits": kept.float().mean(1, keepdim=True)})


@pytest.mark.parametrize(("masked", "why"), [(False, "it reads padding"), (True, "padding changes its numbers")])
def test_a_class_whose_numbers_padding_changes_runs_one_by_one(masked: bool, why: str) -> None:
    found = ClassScorer(ReadsPadding(masked), HeadRule(kind="model"), None, BatchLimits())
    assert found.description == f"its own class, one by one: {why}"
    rows = [Row((5, 7), ONE), Row((8, 9, 10), ONE)]
    assert [values(each) for each in found.run(rows)] == [[6.0], [9.0]]


def test_a_decoder_reads_the_last_token_also_if_it_is_the_pad_token(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "gpt2", "gpt2")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pad = model.config.pad_token_id
    assert pad is not None
    ids = (20, 30, 40, pad)
    with torch.inference_mode():
        wanted = model.score(model.transformer(torch.tensor([ids])).last_hidden_state[0, -1]).tolist()
        trapped = model(torch.tensor([ids])).logits[0].tolist()
    found = values(scorer(folder).run([Row(ids, ONE), Row((20, 30), ONE)])[0])
    assert found == pytest.approx(wanted, abs=1e-6)
    assert abs(found[0] - trapped[0]) > 1e-3
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    before = ClassScorer(model, HeadRule(kind="model"), None, BatchLimits(), skips_pad=True)
    assert values(before.run([Row(ids, ONE)])[0]) == pytest.approx(trapped, abs=1e-6)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_ids_without_eos_have_no_reward_where_it_is_read_at_eos(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path / kind, kind)
    end = make_tokenizer("t5" if kind == "t5" else "bpe").eos_token_id
    lost, good = scorer(folder).run([Row((20, 30, 40), ONE), Row((20, 30, 40, end), ONE)])
    assert isinstance(lost, Unprocessable)
    assert f"end them with {end}" in str(lost)
    assert values(good)


def test_a_row_whose_segments_are_unclear_fails_alone_and_weights_multiply(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "bert", "bert")
    found = scorer(folder, TokenizerFrame(make_tokenizer("wordpiece"), pair=True))
    whole = (2, 20, 3, 30, 3)
    unclear, once, twice = found.run([Row((2, 20, 3, 30, 3, 40, 3), ONE), Row(whole, ONE), Row(whole, (("m", 2.0),))])
    assert isinstance(unclear, Unprocessable)
    assert values(twice) == [2 * each for each in values(once)]
