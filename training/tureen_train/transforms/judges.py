"""How likely the first of two answers is the better one, by a model: what unlabelled pairs are labelled with (SSRM).

The model is an artifact, read in this process in float32, or a server over HTTP; of either kind that compares answers:
one that reads both at once, in both orders, or one that rewards each.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tureen import Client
from tureen.records.schema import BadOption, BadRecord, Record
from tureen.wire import Label
from tureen_core.artifact import Artifact, ArtifactError, open_artifact
from tureen_core.calibration import compute_sigmoid
from tureen_core.inputs import render_pair
from tureen_core.manifest import Objective
from tureen_core.reading import Rendered
from tureen_core.tournament import compute_preference
from tureen_train.evaluation.pairwise_models import TOO_LONG
from tureen_train.evaluation.scorers import SCHEMES, open_reader

Done = Callable[[float], object]


class Judge(Protocol):
    """Something that compares the two answers of a record."""

    def probabilities(self, records: Sequence[Record], done: Done) -> list[float | None]:
        """That each record's first answer is better; None where it is too long. ``done`` hears how many more are."""


def open_judge(model: str, objective: str | None = None, batch: int = 8) -> Judge:
    """The judge that a user named: an artifact's folder, or a server's address, of which ``#name`` names a reward.

    Args:
        objective: which reward is asked, where there are several.
        batch: texts that run together in process; over HTTP, records in one request.

    Raises:
        ArtifactError: the folder is no artifact of a reward model that compares answers.
        BaseError: its base is missing or another one.
        BadOption: a server's reward is not named, or the artifact has no such objective.
    """
    if model.startswith(SCHEMES):
        address, _, named = model.partition("#")
        if not (named or objective):
            raise BadOption(f"name the reward that {address} judges by: {address}#name, or --objective")
        return ServerJudge(Client(address), str(named or objective), batch)
    return ArtifactJudge(open_artifact(Path(model)), objective, batch)


class ArtifactJudge:
    """Reads an artifact in this process, on the GPU where there is one."""

    def __init__(self, artifact: Artifact, objective: str | None, batch: int) -> None:
        manifest = artifact.manifest
        if manifest.kind != "reward" or manifest.input == "steps":
            raise ArtifactError(
                f"{artifact.folder}: {manifest.name} compares no answers; name a reward model that does"
            )
        self.objective = _one(manifest.objectives, objective, manifest.name)
        self.side_by_side = manifest.input == "pair"
        self.reader = open_reader(artifact)
        self.batch = batch

    def probabilities(self, records: Sequence[Record], done: Done) -> list[float | None]:
        """As :class:`Judge` says: the mean over both orders, or Bradley-Terry's, with the artifact's temperature."""
        rendered = [self._texts(record) for record in records]
        fits = [not any(text.truncated for text in texts) for texts in rendered]
        read = [text.ids for texts, whole in zip(rendered, fits, strict=True) if whole for text in texts]
        found = iter(self.reader.score_ids(read, self.batch, lambda count: done(count / 2)))
        done(len(records) - sum(fits))
        return [self._judge(*islice(found, 2)) if whole else None for whole in fits]

    def _texts(self, record: Record) -> list[Rendered]:
        first, second = record.answers
        renderer = self.reader.renderer
        if self.side_by_side:
            return [render_pair(renderer, record.prompt, *order) for order in ((first, second), (second, first))]
        return [renderer.render_conversation(conversation) for conversation in record.conversations]

    def _judge(self, one: Sequence[float], other: Sequence[float]) -> float:
        scale = self.objective.calibration
        first, second = one[self.objective.column], other[self.objective.column]
        if self.side_by_side:
            return compute_preference(first, second, scale.temperature)
        return compute_sigmoid(scale.logit(first, second))


class ServerJudge:
    """Asks a Tureen server for preference labels."""

    def __init__(self, client: Client, reward: str, batch: int) -> None:
        self.client = client
        self.reward = reward
        self.batch = batch

    def probabilities(self, records: Sequence[Record], done: Done) -> list[float | None]:
        """As :class:`Judge` says.

        Raises:
            BadRecord: the server refuses a record for another reason than its length.
        """
        found: list[float | None] = []
        for start in range(0, len(records), self.batch):
            some = records[start : start + self.batch]
            items = [_item(record) for record in some]
            reply = self.client.preferences(items, rewards=[self.reward], matrix=True, on_error="item")
            found += [_answer(record, label) for record, label in zip(some, reply.data, strict=True)]
            done(len(some))
        return found


def _item(record: Record) -> dict[str, Any]:
    return {"prompt": list(record.prompt), "candidates": [list(answer) for answer in record.answers]}


def _answer(record: Record, label: Any) -> float | None:
    assert isinstance(label, Label)  # what the full format gives
    if label.matrix is not None:
        return label.matrix[0][1]
    errors = [label.error, *(candidate.error for candidate in label.candidates)]
    told = next(error for error in errors if error is not None)
    if any(error is not None and error.code == TOO_LONG for error in errors):
        return None
    raise BadRecord("the server refused it", told.message, record.source)


def _one(objectives: Sequence[Objective], name: str | None, whose: str) -> Objective:
    known = {each.name: each for each in objectives}
    if name is None and len(known) > 1:
        raise BadOption(f"--objective: {whose} has {', '.join(known)}; name one")
    if name is not None and name not in known:
        raise BadOption(f"--objective: {whose} has no {name!r}; it has {', '.join(known)}")
    return known[name] if name is not None else objectives[0]
