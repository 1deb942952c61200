"""Packed batches: where every token stands, and that loss and gradients are those of the padded batch."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from train.tiny_runs import LORA, reward_run
from transformers import TrainingArguments

from tureen.records.schema import Record
from tureen_core.base import load_tokenizer
from tureen_core.template import Renderer
from tureen_train.config import Lora, Model
from tureen_train.networks.packing import pack_padded
from tureen_train.networks.reward_model import add_lora, load_reward_model
from tureen_train.rewards.collate import EncodedRecords, pad_texts
from tureen_train.rewards.ranking import RankingMethod
from tureen_train.rewards.trainer import RewardTrainer

FIRST, SECOND, OTHER = [5, 6, 7, 8], [5, 6, 9], [4, 4]


def padded(*rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = pad_texts(rows, 0)
    return batch["input_ids"], batch["attention_mask"]


# --------------------------------------------------------------------------- layout


def test_a_shared_prompt_stands_once_before_what_its_texts_add() -> None:
    found = pack_padded(*padded(FIRST, OTHER, SECOND), torch.tensor([0, 1, 0]))
    assert found.ids.tolist() == [5, 6, 7, 8, 4, 4, 9]
    assert found.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert found.lengths.tolist() == [2, 2, 2, 1]
    assert found.keys.tolist() == [0, 1] + [0, 1, 2, 3] + [4, 5] + [0, 1, 6]
    assert found.find_texts(range(3))[0].tolist() == [[0, 1, 2, 3], [4, 5, 0, 0], [0, 1, 6, 0]]


def test_without_groups_each_text_stands_alone() -> None:
    found = pack_padded(*padded(FIRST, SECOND))
    assert found.ids.tolist() == [*FIRST, *SECOND]
    assert found.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert found.lengths.tolist() == found.reaches.tolist() == [4, 3]


@pytest.mark.parametrize(
    ("rows", "tokens"),
    [
        ([FIRST, FIRST], 5),  # equal texts keep their last token each
        ([FIRST, FIRST[:2]], 5),  # one is the beginning of the other
        ([FIRST, OTHER], 6),  # nothing in common
        ([FIRST], 4),
        ([[5], [5]], 2),
        ([[5, 6, 7], [5, 6, 8], [5, 9]], 6),  # the longest prefix of all three, not of two
    ],
)
def test_what_all_texts_of_a_prompt_begin_with_is_shared(rows: list[list[int]], tokens: int) -> None:
    ids, mask = padded(*rows)
    found = pack_padded(ids, mask, torch.zeros(len(rows)).long())
    assert found.ids.shape == (tokens,)
    places, present = found.find_texts(range(len(rows)))
    assert torch.equal(present, mask)
    assert torch.equal(found.ids[places] * mask, ids)
    again = torch.arange(ids.shape[1]) * mask
    assert torch.equal(found.positions[places] * mask, again)


# --------------------------------------------------------------------------- exactness


LONG = "why do leaves fall in autumn? " * 3
SCORES = [(2.0, 1.0, 0.0, 0.0, 1.0), (1.0, 0.0), (1.0,), (0.0, 0.0, 1.0)]


def records(prompt: str = "") -> list[Record]:
    """Ragged groups of answers of several lengths; one record is whole conversations that begin unlike."""
    made = [
        Record(
            ({"role": "user", "content": f"{prompt} {number}"},),
            tuple(({"role": "assistant", "content": "fox " * (1 + 2 * n) + str(number)},) for n in range(len(scores))),
            scores,
        )
        for number, scores in enumerate(SCORES)
    ]
    talks = tuple(({"role": "user", "content": word}, {"role": "assistant", "content": "fox"}) for word in ("a", "b"))
    return [*made, Record((), talks, (1.0, 0.0))]


CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": Lora(**LORA)},
    "imitation": {"lora": Lora(**LORA), "loss": {"lm_coefficient": 0.3, "lm_threshold": 0.4}},
    "imitation of the prompt": {"loss": {"lm_coefficient": 0.3, "lm_threshold": 0.4, "lm_prompt": True}},
    "checkpointing": {"lora": Lora(**LORA), "checkpointing": {"use_reentrant": False}},
    "checkpointing, re-entrant": {"checkpointing": {"use_reentrant": True}},
    "left-truncated": {"reading": {"max_length": 40}},
    "mean pooling": {"reading": {"pooling": "mean"}},
    "max pooling": {"reading": {"pooling": "max"}},
    "no group is shared": {"packing": "texts"},
}


def gradients(
    base: Path, folder: Path, case: dict[str, Any], packing: Any
) -> tuple[float, int, dict[str, torch.Tensor]]:
    """Loss, tokens that the backbone ran on, and every trained weight's gradient, of one batch of all records."""
    renderer = Renderer(load_tokenizer(base), tiny.reading(base, **case.get("reading", {})))
    encoded = EncodedRecords(records(LONG), renderer)
    settings = Model(lora=case.get("lora"), precision="fp32")
    torch.manual_seed(0)
    model = load_reward_model(base, settings, renderer.reading)
    model = add_lora(model, settings) if settings.lora else model
    one = RewardTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(folder), use_cpu=True, dataloader_pin_memory=False),
        train_dataset=encoded,
        processing_class=renderer.tokenizer,
        method=RankingMethod(reward_run(base, folder, loss=case.get("loss", {})), renderer),
        width=encoded.width,
        packing=packing,
    )
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].numel()))
    if "checkpointing" in case:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=case["checkpointing"])
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    loss = one.compute_loss(model.train(), one.data_collator(encoded.items))
    loss.backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    return float(loss.detach()), seen[0], trained


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_the_padded_batch(base: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    loss, tokens, expected = gradients(base, tmp_path, case, "off")
    again, fewer, found = gradients(base, tmp_path, case, case.get("packing", "prompts"))
    assert fewer < tokens
    assert again == pytest.approx(loss, abs=1e-5)
    assert found.keys() == expected.keys()
    for weight, gradient in expected.items():
        assert gradient.abs().max() > 0, weight
        assert torch.allclose(found[weight], gradient, atol=1e-5), weight


def test_sharing_computes_a_prompt_once(base: Path, tmp_path: Path) -> None:
    renderer = Renderer(load_tokenizer(base), tiny.reading(base))
    texts = EncodedRecords(records(LONG), renderer).items
    _, shared, _ = gradients(base, tmp_path, {}, "prompts")
    _, alone, _ = gradients(base, tmp_path, {}, "texts")
    prompts = sum((len(item.ids) - 1) * item.starts[0] for item in texts[:-1])  # the last has none
    assert alone == sum(len(ids) for item in texts for ids in item.ids)
    assert alone - shared >= prompts > alone / 4


def test_a_packing_of_other_texts_is_refused(base: Path) -> None:
    model = load_reward_model(base, Model(lora=None, precision="fp32"), tiny.reading(base))
    ids, mask = padded(FIRST, SECOND)
    with pytest.raises(ValueError, match=r"packing and ids are of different texts: \[1, 4\] and \[2, 4\]"):
        model(input_ids=ids, attention_mask=mask, packing=pack_padded(*padded(FIRST)))


def test_attention_that_knows_no_packing_fails(base: Path, tmp_path: Path) -> None:
    """A plain one would take the row for one text."""
    model = load_reward_model(base, Model(lora=None, precision="fp32"), tiny.reading(base))
    ids, mask = padded(FIRST, SECOND)
    with pytest.raises(RuntimeError):
        model(input_ids=ids, attention_mask=mask, packing=pack_padded(ids, mask))
