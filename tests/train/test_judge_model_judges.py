"""Who labels pairs: artifacts of both kinds, read in process, and a server; what is too long is not judged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from tureen import Client
from tureen.records.dialogue import assistant_turn, user_turn
from tureen.records.schema import UNLABELLED, BadOption, BadRecord, Record
from tureen.wire import PreferencesReply
from tureen_core.adapter_files import write_adapter
from tureen_core.artifact import Artifact, ArtifactError, Base, Manifest, Objective, seal_artifact
from tureen_core.base import digest_weights, load_tokenizer
from tureen_core.calibration import Calibration, compute_sigmoid
from tureen_core.manifest import Input
from tureen_core.pair_texts import render_pair
from tureen_core.template import Renderer
from tureen_core.tournament import compute_preference
from tureen_train.judge.comparisons import TOO_LONG, Judgement
from tureen_train.judge.model_judges import ServerJudge
from tureen_train.judge.opening import open_reward_judge
from tureen_train.networks.reward_reader import RewardReader

TEXTS = ("the quick brown fox", "the lazy dog", "leaves fall in autumn")
RECORDS = [
    Record(
        (user_turn(f"prompt {number}"),),
        ((assistant_turn(one),), (assistant_turn(other),)),
        (UNLABELLED, UNLABELLED),
        f"f:{number}",
    )
    for number, (one, other) in enumerate([(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[0]), (TEXTS[1], TEXTS[1])])
]


def artifact(
    folder: Path, base: Path, given: Input = "pair", names: Sequence[str] = ("fox",), **reading: Any
) -> Artifact:
    """A sealed artifact with a random head, of temperature 2."""
    head = torch.randn(len(names), 32, generator=torch.Generator().manual_seed(5))
    extras = {"score.weight": head}
    write_adapter(tiny.adapter("fox", 3), folder, "tiny", extras=extras, task="SEQ_CLS", dtype=torch.float32)
    scale = Calibration(temperature=2.0)
    return seal_artifact(
        folder,
        Manifest(
            kind="reward",
            input=given,
            name="fox",
            base=Base(model=str(base), digest=digest_weights(base)),
            objectives=[Objective(name=name, column=at, calibration=scale) for at, name in enumerate(names)],
            reading=tiny.reading(base, eos="append" if given == "conversation" else "none", **reading),
        ),
    )


def test_a_model_of_pairs_is_asked_in_both_orders(base: Path, tmp_path: Path) -> None:
    made = artifact(tmp_path, base)
    told: list[float] = []
    found = open_reward_judge(str(tmp_path), batch=4).judge_pairs(RECORDS, told.append)
    reader = RewardReader(tmp_path, base, made.manifest.reading)
    renderer = Renderer(load_tokenizer(base), made.manifest.reading)
    for record, judged in zip(RECORDS, found, strict=True):
        first, second = record.answers
        texts = [render_pair(renderer, record.prompt, *order).ids for order in ((first, second), (second, first))]
        (forward,), (backward,) = reader.score_ids(texts)
        assert judged.share == pytest.approx(compute_preference(forward, backward, 2.0), abs=1e-6)
    assert found[2].share == pytest.approx(0.5, abs=1e-6)
    assert sum(told) == 3


def test_a_model_of_conversations_judges_by_the_gap_of_one_objective(base: Path, tmp_path: Path) -> None:
    made = artifact(tmp_path, base, "conversation", ("fox", "dog"))
    with pytest.raises(BadOption, match="--objective: name one of the rewards of fox: fox, dog"):
        open_reward_judge(str(tmp_path))
    with pytest.raises(BadOption, match="fox has no reward 'cat'"):
        open_reward_judge(str(tmp_path), "cat")
    found = open_reward_judge(str(tmp_path), "dog").judge_pairs(RECORDS, lambda _: None)
    reader = RewardReader(tmp_path, base, made.manifest.reading, 2)
    for record, judged in zip(RECORDS, found, strict=True):
        (_, first), (_, second) = reader.score_conversations(record.conversations)
        assert judged.share == pytest.approx(compute_sigmoid((first - second) / 2), abs=1e-6)


def test_tools_are_rendered_or_refused_by_name(base: Path, tmp_path: Path) -> None:
    record = replace(RECORDS[0], tools=({"type": "function", "function": {"name": "f"}},))
    made = artifact(tmp_path / "tools", tiny.base_with_tools(tmp_path / "base"), "conversation")
    (found,) = open_reward_judge(str(made.folder)).judge_pairs([record], lambda _: None)
    (bare,) = open_reward_judge(str(made.folder)).judge_pairs(RECORDS[:1], lambda _: None)
    assert found.share != pytest.approx(bare.share, abs=1e-4)
    for given in ("conversation", "pair"):
        other = artifact(tmp_path / given, base, given)
        with pytest.raises(BadRecord, match="f:0: .*`tools`"):
            open_reward_judge(str(other.folder)).judge_pairs([record], lambda _: None)


def test_what_is_too_long_is_not_judged(base: Path, tmp_path: Path) -> None:
    artifact(tmp_path, base, max_length=110)
    long = Record((user_turn("x" * 200),), RECORDS[0].answers, (1, 0))
    told: list[float] = []
    found = open_reward_judge(str(tmp_path)).judge_pairs([RECORDS[0], long], told.append)
    assert found[0].share is not None
    assert found[1] == Judgement(None, TOO_LONG)
    assert sum(told) == 2


def test_a_model_of_steps_compares_nothing(base: Path, tmp_path: Path) -> None:
    artifact(tmp_path, base, "steps")
    with pytest.raises(ArtifactError, match="fox cannot compare answers"):
        open_reward_judge(str(tmp_path))


# --------------------------------------------------------------------------- over HTTP


class Answering(Client):
    """Answers as a server does, without one."""

    def __init__(self, *labels: dict[str, Any]) -> None:
        self.labels, self.asked = list(labels), list[Any]()

    def preferences(self, items: Any, **options: Any) -> PreferencesReply:
        items = list(items)
        self.asked.append((items, options))
        data = [{"index": at, **self.labels.pop(0)} for at in range(len(items))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return PreferencesReply.model_validate({"fingerprint": {}, "data": data, "usage": usage})


def test_a_server_is_asked_for_its_matrix(base: Path) -> None:
    refused = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    client = Answering({"matrix": [[0.5, 0.9], [0.1, 0.5]]}, refused, {"matrix": [[0.5, 0.2], [0.8, 0.5]]})
    told: list[float] = []
    assert ServerJudge(client, "fox", 2).judge_pairs(RECORDS, told.append) == [
        Judgement(0.9),
        Judgement(None, TOO_LONG),
        Judgement(0.2),
    ]
    assert told == [2, 1]
    items, options = client.asked[0]
    assert items[0] == {"prompt": list(RECORDS[0].prompt), "candidates": [list(each) for each in RECORDS[0].answers]}
    assert (options["rewards"], options["matrix"], options["on_error"]) == (["fox"], True, "item")
    assert not options.get("truncate")


def test_a_server_is_sent_the_tools() -> None:
    client = Answering({"matrix": [[0.5, 0.9], [0.1, 0.5]]})
    tool = {"type": "function", "function": {"name": "f"}}
    ServerJudge(client, "fox", 2).judge_pairs([replace(RECORDS[0], tools=(tool,))], lambda _: None)
    assert client.asked[0][0][0]["tools"] == [tool]


def test_what_a_server_refuses_for_another_reason_stops_it() -> None:
    client = Answering({"error": {"message": "the template refuses it", "type": "invalid_request_error"}})
    with pytest.raises(BadRecord, match="f:0: the server refused it: the template refuses it"):
        ServerJudge(client, "fox", 8).judge_pairs(RECORDS[:1], lambda _: None)


def test_a_servers_reward_has_to_be_named() -> None:
    with pytest.raises(BadOption, match="#name or with --objective"):
        open_reward_judge("http://127.0.0.1:1")
    assert isinstance(open_reward_judge("http://127.0.0.1:1#fox"), ServerJudge)
