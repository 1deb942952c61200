"""Reward reading in training: PEFT and the training class on whole texts, in float32.

Nothing of it is shared with the server but ``tureen_core``, so probes that agree mean that both are right.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from tureen_core.base import load_tokenizer
from tureen_core.gate import GATE, load_gate, select_prompt_ids
from tureen_core.inputs import render_probe
from tureen_core.manifest import Input, Probe
from tureen_core.template import Messages, Reading, Rendered, Renderer
from tureen_train.networks.reward_model import make_reward_class, make_reward_config

Done = Callable[[int], object]


def ignore_progress(_: int) -> None:
    """Nobody asks how far it is."""


class RewardReader:
    """Reads a saved reward model: a PEFT folder over ``base``, or a full checkpoint.

    Args:
        folder: what training saved or exported.
        base: the base's folder; None when ``folder`` is a full checkpoint with its tokenizer.
        objectives: rows of the head.
        device: where it runs.
        quantised: how the library shall load the base, where not as it is.

    Attributes:
        half: read under bfloat16's autocast, as training in bf16 reads.
    """

    def __init__(
        self,
        folder: Path,
        base: Path | None,
        reading: Reading,
        objectives: int = 1,
        device: str = "cpu",
        quantised: Any = None,
    ) -> None:
        root = base or folder
        config = make_reward_config(root, reading, objectives)
        opener = make_reward_class(config)
        model = opener.from_pretrained(root, config=config, dtype=torch.float32, quantization_config=quantised)
        if base is not None:
            model = PeftModel.from_pretrained(model, folder).get_base_model()
        self.model: Any = model.eval() if quantised else model.eval().to(device)  # those stay where they were packed
        self.renderer = Renderer(load_tokenizer(root), reading)
        self.device = model.device
        self.half = False
        self.gate = load_gate(folder) if (folder / GATE).is_file() else None
        self._prompt: tuple[list[int], bool] = ([], False)
        self._coefficients = torch.empty(0)

    def rewards(self, conversations: Sequence[Messages]) -> list[list[float]]:
        """Raw rewards of finished conversations, one row of K each; each text runs alone."""
        return self.read([self.renderer.render_conversation(messages).ids for messages in conversations])

    def values(self, probes: Sequence[Probe], given: Input = "conversation") -> list[list[float]]:
        """What a model that reads ``given`` gives for probes, a column for each objective; each runs alone."""
        return self.valued([render_probe(self.renderer, given, probe) for probe in probes])

    def valued(self, texts: Sequence[Rendered], batch: int = 1, done: Done = ignore_progress) -> list[list[float]]:
        """What texts are worth: the head's K rewards, and after them a gate's overall one where there is a gate.

        Raises:
            Unprocessable: a gate cannot tell where a text's prompt ends.
        """
        rows = self.read([text.ids for text in texts], batch, done)
        if self.gate is None:
            return rows
        prompts = [select_prompt_ids(text) for text in texts]
        return [[*row, self._overall(row, prompt)] for row, prompt in zip(rows, prompts, strict=True)]

    @torch.inference_mode()
    def _overall(self, rewards: list[float], prompt: list[int]) -> float:
        assert self.gate is not None
        if (prompt, self.half) != self._prompt:  # the answers to one prompt follow each other
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                hidden = self.model.base_model(torch.tensor([prompt], device=self.device), use_cache=False)[0]
            self._prompt, self._coefficients = (prompt, self.half), self.gate.coefficients(hidden[:, -1].cpu())
        return float(self.gate.score(torch.tensor([rewards]), self._coefficients))

    def read(self, texts: Sequence[Sequence[int]], batch: int = 1, done: Done = ignore_progress) -> list[list[float]]:
        """Raw rewards of texts as ids, one row of K each.

        Args:
            texts: their ids, rendered.
            batch: how many run together, padded on the right; texts of about one length do.
            done: told how many more are read, as they are.
        """
        rows: list[list[float]] = [[] for _ in texts]
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            for place, row in zip(places, self._together([texts[place] for place in places]), strict=True):
                rows[place] = row
            done(len(places))
        return rows

    @torch.inference_mode()
    def _together(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        longest, pad = max(map(len, texts)), self.renderer.tokenizer.pad_token_id
        ids = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in texts], device=self.device)
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            rewards: list[list[float]] = self.model(input_ids=ids, attention_mask=mask).rewards.tolist()
        return rewards
