"""Reads rewards in training: by PEFT and the training class, on whole texts, in float32.

It shares only ``tureen_core`` with the server. So if the probes agree, two independent implementations do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from tureen_core.artifact import Artifact, read_gate, read_head_tensors, read_weights
from tureen_core.base import BaseError, digest_weights, load_tokenizer, locate_base
from tureen_core.capped_attention import keep_attention_cap
from tureen_core.gate import GATE, load_gate, select_prompt_ids
from tureen_core.inputs import render_probe
from tureen_core.manifest import Input, Probe
from tureen_core.reading import Reading, Rendered
from tureen_core.template import Renderer
from tureen_core.turns import Messages
from tureen_train.networks.imported_model import IMPORT, ImportedModel
from tureen_train.networks.reward_model import make_reward_class, make_reward_config

Done = Callable[[int], object]


def ignore_progress(_: int) -> None:
    """Take a progress report and do nothing."""


def spread_progress(done: Done, answers: int, texts: int) -> Done:
    """Return a progress callback that is called with numbers of texts and calls ``done`` with numbers of answers.

    Args:
        answers: the number of all answers.
        texts: the number of all texts.
    """
    read = 0

    def report(count: int) -> None:
        nonlocal read
        if count:
            done(answers * (read + count) // texts - answers * read // texts)
        read += count

    return report


class RewardReader:
    """Reads a saved reward model: a PEFT folder over ``base``, or a full checkpoint.

    Args:
        folder: the saved or exported model.
        base: the base's folder; None when ``folder`` is a full checkpoint with its tokenizer.
        objectives: rows of the head.
        device: the device it runs on.
        quantised: the library's settings for a quantised base.

    Attributes:
        half: whether to run under bfloat16 autocast, as training in bf16 does.
        opening: the ids after the token at which the gate reads the prompt, where it is not the last one.

    Example:
        reader = RewardReader(artifact.folder, base, artifact.manifest.reading)
        reader.score_conversations([[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]])
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
        model = opener.from_pretrained(
            root,
            config=config,
            dtype=torch.float32,
            quantization_config=quantised,
            ignore_mismatched_sizes=base is not None,  # of the base's own head, in whose place the adapter's stands
        )
        model = keep_attention_cap(model)
        if base is not None:
            model = PeftModel.from_pretrained(model, folder).get_base_model()
        self.model: Any = model.eval() if quantised else model.eval().to(device)  # quantised weights cannot be moved
        self.renderer = Renderer(load_tokenizer(root), reading)
        self.device = model.device
        self.half = False
        self.gate = load_gate(folder) if (folder / GATE).is_file() else None
        self.opening: tuple[int, ...] = ()
        self._prompt: list[int] = []
        self._coefficients = torch.empty(0)

    def score_conversations(self, conversations: Sequence[Messages]) -> list[list[float]]:
        """Score finished conversations: a row of K raw rewards for each. Each text runs alone."""
        return self.score_ids([self.renderer.render_conversation(messages).ids for messages in conversations])

    def score_probes(self, probes: Sequence[Probe], given: Input = "conversation") -> list[list[float]]:
        """Score probes of a model whose input is ``given``: a column for each objective. Each text runs alone."""
        return self.score_texts([render_probe(self.renderer, given, probe) for probe in probes])

    def score_texts(self, texts: Sequence[Rendered], batch: int = 1, done: Done = ignore_progress) -> list[list[float]]:
        """Score rendered texts: the head's K rewards, and after them the overall reward where there is a gate.

        Raises:
            Unprocessable: there is a gate, and the end of a text's prompt is not known.
        """
        rows = self.score_ids([text.ids for text in texts], batch, done)
        if self.gate is None:
            return rows
        prompts = [select_prompt_ids(text, self.opening) for text in texts]
        self._prompt = []  # how the model reads may have changed since
        return [[*row, self._overall(row, prompt)] for row, prompt in zip(rows, prompts, strict=True)]

    @torch.inference_mode()
    def _overall(self, rewards: list[float], prompt: list[int]) -> float:
        assert self.gate is not None
        if prompt != self._prompt:  # answers to one prompt follow each other
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                hidden = self.model.base_model(torch.tensor([prompt], device=self.device), use_cache=False)[0]
            self._prompt, self._coefficients = prompt, self.gate.coefficients(hidden[:, -1].cpu())
        return float(self.gate.score(torch.tensor([rewards]), self._coefficients))

    def score_ids(
        self, texts: Sequence[Sequence[int]], batch: int = 1, done: Done = ignore_progress
    ) -> list[list[float]]:
        """Score texts given as ids: a row of K raw rewards for each.

        Args:
            batch: how many texts run together, padded on the right; texts of similar length do.
            done: called with the number of texts that each batch has scored.
        """
        rows: list[list[float]] = [[] for _ in texts]
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            for place, row in zip(places, self._score_batch([texts[place] for place in places]), strict=True):
                rows[place] = row
            done(len(places))
        return rows

    @torch.inference_mode()
    def _score_batch(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        longest, pad = max(map(len, texts)), self.renderer.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in texts], device=self.device)
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts], device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            rewards: list[list[float]] = self.model(input_ids=ids, attention_mask=mask).rewards.tolist()
        return rewards


class ImportedReader(RewardReader):
    """Reads a model that others trained, from its artifact with full weights."""

    def __init__(self, artifact: Artifact, device: str = "cpu") -> None:
        reading = artifact.manifest.reading
        self.model = ImportedModel(artifact).to(device)
        self.renderer = Renderer(load_tokenizer(artifact.folder, own_pad=False), reading, own_pad=False)
        self.device = torch.device(device)
        self.half = False
        self.gate = read_gate(artifact)
        self.opening = self.renderer.frame.opening_ids if artifact.manifest.head.gate_at == "turn" else ()
        self._prompt = []
        self._coefficients = torch.empty(0)


def open_reader(artifact: Artifact) -> RewardReader:
    """Open an artifact in this process, on the GPU if there is one.

    Raises:
        BaseError: its base is missing, or has other weights.
    """
    manifest = artifact.manifest
    if manifest.weights == "full" and IMPORT in manifest.training.recipe:
        return ImportedReader(artifact, "cuda" if torch.cuda.is_available() else "cpu")
    base = None
    if manifest.weights == "lora":
        assert manifest.base is not None
        base = locate_base(manifest.base.model)
        if digest_weights(base) != manifest.base.digest:
            raise BaseError(f"{manifest.name} was trained on other weights than those in {base}: the digests differ")
        head = read_weights(artifact)[1]
    else:
        head = read_head_tensors(artifact.folder).get("score.weight")
    assert head is not None  # a verified artifact has a head
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return RewardReader(artifact.folder, base, manifest.reading, len(head), device)
