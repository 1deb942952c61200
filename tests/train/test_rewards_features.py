"""Hidden states of a frozen model: the right tokens, the right order, kept on disk by what they are of."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from tureen_train.config import Model
from tureen_train.networks.reward_model import load_reward_model
from tureen_train.rewards.collate import EncodedRecord
from tureen_train.rewards.features import Features

ITEMS = [
    EncodedRecord([[5, 6, 7, 8], [5, 6, 9]], [2, 2], [1.0, 0.0]),
    EncodedRecord([[11, 12, 13, 14, 15, 2]], [4], [1.0]),
    EncodedRecord([[21, 22]], [0], [1.0]),
]


@pytest.fixture
def model(base: Path) -> Any:
    return load_reward_model(base, Model(lora=None, precision="fp32"), tiny.reading(base, pooling="last")).eval()


def hidden(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = model.base_model(input_ids=torch.tensor([ids]))[0][0]
    return states


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_states_are_those_of_each_text_alone(batch: int, model: Any, tmp_path: Path) -> None:
    """``last`` reads the token before EOS; the prompt is read at its last token, which answers do not change."""
    states = Features(model, "tiny", tmp_path, batch)(ITEMS)
    texts = [ids for item in ITEMS for ids in item.ids]
    torch.testing.assert_close(states.answers, torch.stack([hidden(model, ids)[-2] for ids in texts]))
    expected = [hidden(model, [5, 6])[-1], hidden(model, [11, 12, 13, 14])[-1], hidden(model, [21])[-1]]
    torch.testing.assert_close(states.prompts, torch.stack(expected))
    assert states.group.tolist() == [0, 0, 1, 2]


def test_states_are_kept_for_the_same_texts_and_weights_only(model: Any, tmp_path: Path) -> None:
    Features(model, "tiny", tmp_path, 4)(ITEMS)
    (path,) = (tmp_path / "features").iterdir()
    save_file({"answers": torch.ones(4, 32), "prompts": torch.ones(3, 32)}, path)
    assert Features(model, "tiny", tmp_path, 4)(ITEMS).answers.min() == 1
    assert Features(model, "other", tmp_path, 4)(ITEMS).answers.min() != 1
    later = [EncodedRecord(ITEMS[0].ids, [3, 3], ITEMS[0].scores), *ITEMS[1:]]
    assert Features(model, "tiny", tmp_path, 4)(later).answers.min() != 1
    assert len(list((tmp_path / "features").iterdir())) == 3
