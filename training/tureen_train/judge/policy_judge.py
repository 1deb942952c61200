"""A policy in this process as a judge, by its likelihoods of "A" and "B". It writes nothing."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tureen.records.schema import BadOption, Record
from tureen_core.artifact import MANIFEST, ArtifactError, open_artifact
from tureen_core.base import BaseError, digest_weights, load_tokenizer, locate_base
from tureen_core.calibration import compute_sigmoid
from tureen_core.experts.opened_models import attach_adapter, open_model, read_named_base
from tureen_core.peft_config import CONFIG
from tureen_core.reading import Reading
from tureen_core.template import Renderer
from tureen_train.judge.comparisons import TOO_LONG, Comparison, Done, Judgement, make_comparison
from tureen_train.judge.configuration import Choice, JudgeConfiguration
from tureen_train.judge.prompts import write_messages
from tureen_train.records.rendering import locate_refusals


class PolicyJudge:
    """Compares answers by a policy's probability that its next token is the label of A, among those of A and B.

        judge = PolicyJudge("smollm2-135m-instruct", read_configuration("likelihood/pref2A"))

    The probability is the mean over both orders, so that a taste for a place or a letter cancels.

    Args:
        model: the folder of a causal model, of an adapter, or of an expert's or a policy's artifact; or the name of a
            packaged base.
        configuration: what it is asked. It is shown no tie.

    Raises:
        ArtifactError: the artifact does not verify, or is a reward model.
        BadOption: a label is more than one token.
        BaseError: the base is missing, or has other weights.
        SoupError: the model cannot be opened whole.
    """

    reads_tools = False

    def __init__(self, model: str, configuration: JudgeConfiguration) -> None:
        folder, base = _find_parts(model)
        self.configuration = configuration.model_copy(
            update={"labels": {choice: configuration.labels[choice] for choice in ("A", "B")}, "batch": 1}
        )
        self._name = f"{folder.name}, {configuration.name}"
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = open_model(base or folder, folder.name, device)
        if base is not None:
            self._model = attach_adapter(self._model, folder, folder.name)
        self._renderer = Renderer(load_tokenizer(base or folder), Reading(eos="none"))
        self._longest = int(getattr(self._model.config, "max_position_embeddings", 0)) or math.inf
        self._tokens = [self._find_token(choice) for choice in ("A", "B")]

    @property
    def name(self) -> str:
        """The folder and the configuration."""
        return self._name

    def judge_pairs(self, records: Sequence[Record], done: Done) -> list[Judgement]:
        """See :class:`.comparisons.Judge`. Equal answers tie.

        Raises:
            BadRecord: the chat template has no place for a turn.
        """
        found = []
        for record in records:
            with locate_refusals(record.source):
                found.append(self._judge(make_comparison(record)))
            done(1)
        return found

    def _judge(self, pair: Comparison) -> Judgement:
        if pair.first == pair.second:
            return Judgement(0.5)
        odds = [self._read_odds(order) for order in (pair, pair.turned)]
        forward, backward = odds
        if forward is None or backward is None:
            return Judgement(None, TOO_LONG)
        if not (math.isfinite(forward) and math.isfinite(backward)):
            return Judgement(None, f"the log-odds are {forward} and {backward}, not finite numbers")
        return Judgement((compute_sigmoid(forward) + compute_sigmoid(-backward)) / 2)

    @torch.inference_mode()
    def _read_odds(self, order: Comparison) -> float | None:
        """Read the log-odds of A against B; None if the text is too long for the model."""
        ids = self._renderer.tokenize_prompt(write_messages(self.configuration, [order]))
        if len(ids) > self._longest:
            return None
        logits = self._model(input_ids=torch.tensor([ids], device=self._model.device), logits_to_keep=1).logits
        first, second = logits[0, -1, self._tokens].double().tolist()
        return float(first - second)

    def _find_token(self, choice: Choice) -> int:
        label = self.configuration.labels[choice]
        ids: list[int] = self._renderer.tokenizer.encode(label, add_special_tokens=False)
        if len(ids) != 1:
            raise BadOption(
                f"labels: {label!r} is {len(ids)} tokens of {self._name}; a judge by likelihood needs labels of one"
                " token, as the style `likelihood` has"
            )
        return ids[0]


def _find_parts(model: str) -> tuple[Path, Path | None]:
    """Find the folder of a model, and the base under it if it is an adapter."""
    folder = Path(model).expanduser()
    if (folder / MANIFEST).is_file():
        manifest = open_artifact(folder).manifest
        if manifest.kind == "reward":
            raise ArtifactError(f"{folder}: {manifest.name} is a reward model, which has no likelihoods of words")
        if manifest.weights == "full" or manifest.base is None:
            return folder, None
        base = locate_base(manifest.base.model)
        if digest_weights(base) != manifest.base.digest:
            raise BaseError(f"{manifest.name} was trained on other weights than those in {base}: the digests differ")
        return folder, base
    if (folder / CONFIG).is_file():
        named = read_named_base(folder)
        if named is None:
            raise BaseError(f"{folder}: its {CONFIG} names no base")
        return folder, locate_base(named)
    return locate_base(model), None
