"""Reward models as judges: an artifact that is loaded in this process in float32, or a reward of a Tureen server.

A pairwise model reads both answers at once and is asked in both orders; another reward model scores each answer.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from tureen import Client
from tureen.records.schema import BadOption, BadRecord, Record
from tureen.wire import Label
from tureen_core.artifact import Artifact, ArtifactError
from tureen_core.calibration import compute_sigmoid, resolve_scale
from tureen_core.chat_template import make_template_inputs
from tureen_core.manifest import Objective
from tureen_core.pair_texts import render_pair
from tureen_core.reading import Rendered
from tureen_core.tournament import compute_preference
from tureen_train.judge.comparisons import TOO_LONG, Done, Judgement
from tureen_train.networks.reward_reader import open_reader, spread_progress
from tureen_train.records.rendering import locate_refusals

CONTEXT_EXCEEDED = "context_length_exceeded"
LONG = Judgement(None, TOO_LONG)


class ArtifactJudge:
    """A judge that loads an artifact in this process, on the GPU if there is one.

    Args:
        objective: the reward to use, if there are several.
        batch: the texts that run together.

    Raises:
        ArtifactError: its model cannot compare answers.
        BadOption: it has no such objective.
        BaseError: its base is missing, or has other weights.
    """

    reads_tools = True

    def __init__(self, artifact: Artifact, objective: str | None = None, batch: int = 8) -> None:
        manifest = artifact.manifest
        if manifest.kind != "reward" or manifest.input == "steps":
            raise ArtifactError(
                f"{artifact.folder}: {manifest.name} cannot compare answers;"
                " name a reward model that reads conversations or pairs"
            )
        self.objective = _one(manifest.objectives, objective, manifest.name)
        self.side_by_side = manifest.input == "pair"
        self.reader = open_reader(artifact)
        self.batch = batch

    @property
    def name(self) -> str:
        """The name of the artifact's reward."""
        return self.objective.name

    def judge_pairs(self, records: Sequence[Record], done: Done) -> list[Judgement]:
        """See :class:`.comparisons.Judge`. The artifact's temperature is applied.

        A pairwise model gives the mean over both orders, a reward model Bradley-Terry's probability.

        Raises:
            BadRecord: the chat template, or the text of a pair, has no place for a turn or for the tools.
        """
        rendered = [self._texts(record) for record in records]
        fits = [not any(text.truncated for text in texts) for texts in rendered]
        read = [text.ids for texts, whole in zip(rendered, fits, strict=True) if whole for text in texts]
        found = iter(self.reader.score_ids(read, self.batch, spread_progress(done, sum(fits), len(read))))
        done(len(records) - sum(fits))
        return [Judgement(self._judge(*islice(found, 2))) if whole else LONG for whole in fits]

    def _texts(self, record: Record) -> list[Rendered]:
        first, second = record.answers
        renderer, inputs = self.reader.renderer, make_template_inputs(record.template_arguments)
        with locate_refusals(record.source):
            if self.side_by_side:
                return [
                    render_pair(renderer, record.prompt, *order, inputs=inputs)
                    for order in ((first, second), (second, first))
                ]
            return [renderer.render_conversation(each, inputs=inputs) for each in record.conversations]

    def _judge(self, one: Sequence[float], other: Sequence[float]) -> float:
        scale = resolve_scale(self.objective.calibration)
        first, second = one[self.objective.column], other[self.objective.column]
        if self.side_by_side:
            return compute_preference(first, second, scale.temperature)
        return compute_sigmoid(scale.logit(first, second))


class ServerJudge:
    """A judge that asks a Tureen server for preference labels.

    Args:
        batch: the records in one request.
    """

    reads_tools = True

    def __init__(self, client: Client, reward: str, batch: int = 8) -> None:
        self.client = client
        self.reward = reward
        self.batch = batch

    @property
    def name(self) -> str:
        """The name of the server's reward."""
        return self.reward

    def judge_pairs(self, records: Sequence[Record], done: Done) -> list[Judgement]:
        """See :class:`.comparisons.Judge`.

        Raises:
            BadRecord: the server refuses a record, and not because of its length.
        """
        found: list[Judgement] = []
        for start in range(0, len(records), self.batch):
            some = records[start : start + self.batch]
            items = [_item(record) for record in some]
            reply = self.client.preferences(items, rewards=[self.reward], matrix=True, on_error="item")
            found += [_answer(record, label) for record, label in zip(some, reply.data, strict=True)]
            done(len(some))
        return found


def _item(record: Record) -> dict[str, Any]:
    candidates = [list(answer) for answer in record.answers]
    return {"prompt": list(record.prompt), "candidates": candidates, **record.template_arguments}


def _answer(record: Record, label: Any) -> Judgement:
    assert isinstance(label, Label)  # the type of the format "full"
    if label.matrix is not None:
        return Judgement(label.matrix[0][1])
    errors = [label.error, *(candidate.error for candidate in label.candidates)]
    told = next(error for error in errors if error is not None)
    if any(error is not None and error.code == CONTEXT_EXCEEDED for error in errors):
        return LONG
    raise BadRecord("the server refused it", told.message, record.source)


def _one(objectives: Sequence[Objective], name: str | None, whose: str) -> Objective:
    known = {each.name: each for each in objectives}
    if name is None and len(known) > 1:
        raise BadOption(f"--objective: name one of the rewards of {whose}: {', '.join(known)}")
    if name is not None and name not in known:
        raise BadOption(f"--objective: {whose} has no reward {name!r}; its rewards are {', '.join(known)}")
    return known[name] if name is not None else objectives[0]
