"""Scorers over tiny artifacts, in process; tests/journeys holds a server against them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from plain_folders import classifier
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import BadOption, BadRecord
from tureen_core.artifact import ArtifactError
from tureen_core.base import BaseError
from tureen_core.chat_template import TemplateInputs
from tureen_train.evaluation.items import Item
from tureen_train.evaluation.scorers import ArtifactScorer, open_scorer
from tureen_train.networks.reward_reader import RewardReader, ignore_progress

ITEMS = [
    Item("1", (user_turn("why?"),), ((assistant_turn("a fox"),), (assistant_turn("a dog"),)), (1, 0)),
    Item("2", (), ((user_turn("x"), assistant_turn("y")),), (1,)),
    Item(
        "3",
        (user_turn("what?"),),
        ((assistant_turn("leaves " * 200),), (assistant_turn("fall"),), (assistant_turn("b"),)),
        (0, 1, 1),
    ),
]


def scorer(model: Path, objective: str | None = None, weights: dict[str, float] | None = None) -> ArtifactScorer:
    with open_scorer(str(model), objective, weights, batch=3) as found:
        assert isinstance(found, ArtifactScorer)
        return found


def test_an_artifact_gives_what_its_reader_gives(base: Path, tmp_path: Path) -> None:
    artifact = tiny.reward(tmp_path / "one", base, "one", 1)
    reader = RewardReader(artifact.folder, base, artifact.manifest.reading)
    found = scorer(artifact.folder)
    seen: list[int] = []
    scored = found.score(ITEMS, seen.append)
    for item, each in zip(ITEMS, scored, strict=True):
        wanted = [row[0] for row in reader.score_conversations(item.conversations)]
        assert each.rewards == pytest.approx(wanted, abs=1e-5)
        assert each.logits == each.rewards  # a temperature of 1
    assert [each.truncated for each in scored] == [[False, False], [False], [True, False, False]]
    assert sum(seen) == 6
    assert found.name == "one"
    assert found.about["version"] == artifact.manifest.version


def test_a_model_of_others_gives_what_transformers_gives(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "plain", seed=3)
    (folder / "training_args.bin").write_bytes(b"pickled")
    found = scorer(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    item = ITEMS[0]
    (scored,) = found.score([item], ignore_progress)
    for reward, conversation in zip(scored.rewards, item.conversations, strict=True):
        ids = tokenizer.apply_chat_template(
            [dict(turn) for turn in conversation], return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            assert reward == pytest.approx(float(model(ids["input_ids"]).logits), abs=1e-5)
    assert found.about["read"].startswith("by transformers (form ")
    with pytest.raises(ArtifactError, match="tureen-train import takes such flags"):
        scorer(tmp_path)


def test_tools_and_template_arguments_are_rendered_or_refused_by_name(base: Path, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    beside = {"tools": tools, "chat_template_kwargs": {"enable_thinking": False}}
    item = replace(ITEMS[0], template_arguments=beside)
    own = tiny.base_with_tools(tmp_path / "base")
    artifact = tiny.reward(tmp_path / "one", own, "one", 1)
    reader = RewardReader(artifact.folder, own, artifact.manifest.reading)
    inputs = TemplateInputs(tools, {"enable_thinking": False})
    texts = [reader.renderer.render_conversation(each, inputs=inputs) for each in item.conversations]
    (scored, bare) = scorer(artifact.folder).score([item, ITEMS[0]], ignore_progress)
    assert scored.rewards == pytest.approx([row[0] for row in reader.score_ids([each.ids for each in texts])], abs=1e-5)
    assert scored.rewards != pytest.approx(bare.rewards, abs=1e-3)
    plain = tiny.reward(tmp_path / "plain", base, "plain", 1)
    with pytest.raises(BadRecord, match="1: cannot be rendered: the chat template .*`tools`"):
        scorer(plain.folder).score([item], ignore_progress)


def test_an_objective_of_several_is_its_column(base: Path, tmp_path: Path) -> None:
    artifact = tiny.reward(tmp_path / "two", base, "two", 1, objectives=["a", "b"])
    reader = RewardReader(artifact.folder, base, artifact.manifest.reading, objectives=2)
    rows = reader.score_conversations(ITEMS[0].conversations)
    second = scorer(artifact.folder, "b")
    assert second.name == "two:b"
    assert second.score(ITEMS, ignore_progress)[0].rewards == pytest.approx([row[1] for row in rows], abs=1e-5)
    mixed = scorer(artifact.folder, None, {"a": 1, "b": 3})
    wanted = [0.25 * row[0] + 0.75 * row[1] for row in rows]  # calibrated by mean 0 and deviation 1
    assert mixed.score(ITEMS, ignore_progress)[0].rewards == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(BadOption, match=": a, b; or give --preferences"):
        scorer(artifact.folder)


def test_a_full_checkpoint_is_read_without_a_base(base: Path, tmp_path: Path) -> None:
    artifact = tiny.full_reward(tmp_path / "full", base, "full", 2)
    reader = RewardReader(artifact.folder, None, artifact.manifest.reading)
    (first, *_) = scorer(artifact.folder).score(ITEMS, ignore_progress)
    wanted = [row[0] for row in reader.score_conversations(ITEMS[0].conversations)]
    assert first.rewards == pytest.approx(wanted, abs=1e-5)


def test_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    own = tmp_path / "base"
    shutil.copytree(base, own)
    artifact = tiny.reward(tmp_path / "one", own, "one", 1)
    tiny.base(own, seed=5)
    with pytest.raises(BaseError, match="one was trained on other weights"):
        scorer(artifact.folder)


def test_what_is_no_reward_model_is_refused(base: Path, tmp_path: Path) -> None:
    expert = tiny.expert(tmp_path / "expert", base, "expert", 1)
    with pytest.raises(ArtifactError, match="expert is of kind expert"):
        scorer(expert.folder)
    with pytest.raises(ArtifactError, match=r"has no tureen\.json"):
        scorer(tmp_path / "nowhere")
