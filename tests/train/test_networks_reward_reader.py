"""Reading rewards: texts that run together have the rewards that they have alone, in the order asked."""

from pathlib import Path

import pytest
import tiny

from tureen_core.manifest import Probe
from tureen_train.networks.reward_reader import RewardReader

TALKS = [
    [{"role": "user", "content": "why?"}, {"role": "assistant", "content": answer}]
    for answer in ("a fox", "the quick brown fox jumps over the lazy dog " * 4, "", "leaves fall in autumn", "b")
]


@pytest.fixture(scope="module", params=["eos", "last", "mean", "max"])
def reader(base: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> RewardReader:
    folder = tmp_path_factory.mktemp(request.param)
    artifact = tiny.reward(folder, base, "two", 3, objectives=["one", "two"], pooling=request.param)
    return RewardReader(artifact.folder, base, artifact.manifest.reading, objectives=2)


def test_texts_together_are_read_as_alone(reader: RewardReader) -> None:
    alone = reader.score_conversations(TALKS)
    texts = [reader.renderer.render_conversation(talk).ids for talk in TALKS]
    assert len({len(text) for text in texts}) > 2
    for batch in (2, 3, 64):
        for row, wanted in zip(reader.score_ids(texts, batch), alone, strict=True):
            assert row == pytest.approx(wanted, abs=1e-5)
    assert all(len(row) == 2 for row in alone)
    assert len({row[0] for row in alone}) == len(TALKS)


def test_probes_are_read_as_the_conversations_that_they_are(reader: RewardReader) -> None:
    assert reader.score_probes([Probe(messages=talk) for talk in TALKS]) == reader.score_conversations(TALKS)


def test_progress_is_told_text_by_text(reader: RewardReader) -> None:
    seen: list[int] = []
    reader.score_ids([[1, 2], [1], [1, 2, 3], [1, 2], [3]], batch=2, done=seen.append)
    assert seen == [2, 2, 1]
    assert reader.score_ids([]) == []
