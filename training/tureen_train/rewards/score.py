"""Reward reading in training: PEFT and the training class on whole texts, one at a time, float32.

Nothing of it is shared with the server but ``tureen_core``, so probes that agree mean that both are right.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from tureen_core.base import load_tokenizer
from tureen_core.template import Messages, Reading, Renderer
from tureen_train.rewards.model import reward_class, reward_config


class RewardReader:
    """Reads a saved reward model: a PEFT folder over ``base``, or a full checkpoint.

    Args:
        folder: what training saved or exported.
        base: the base's folder; None when ``folder`` is a full checkpoint with its tokenizer.
        objectives: rows of the head.
    """

    def __init__(self, folder: Path, base: Path | None, reading: Reading, objectives: int = 1) -> None:
        root = base or folder
        config = reward_config(root, reading, objectives)
        model = reward_class(config).from_pretrained(root, config=config, dtype=torch.float32)
        if base is not None:
            model = PeftModel.from_pretrained(model, folder).get_base_model()
        self.model: Any = model.eval()
        self.renderer = Renderer(load_tokenizer(root), reading)

    @torch.inference_mode()
    def rewards(self, conversations: Sequence[Messages]) -> list[list[float]]:
        """Raw rewards of finished conversations, one row of K each."""
        return [self._one(messages) for messages in conversations]

    def _one(self, messages: Messages) -> list[float]:
        ids = torch.tensor([self.renderer.conversation(messages).ids])
        rewards: list[float] = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).rewards[0].tolist()
        return rewards
