"""Which judge a user names, and the options that do not fit it."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from tureen.records.schema import BadOption
from tureen_train.judge.language_judge import LanguageJudge
from tureen_train.judge.model_judges import ArtifactJudge, ServerJudge
from tureen_train.judge.opening import open_judge, open_reward_judge
from tureen_train.judge.policy_judge import PolicyJudge

SERVER = "http://127.0.0.1:1"


def test_each_kind_of_judge_is_known_by_its_name(base: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    reward = tiny.reward(tmp_path / "reward", base, "kind", 1)
    asked = open_judge(SERVER, kept, model="m", configuration="pref2A", style="annotate", batch=3, most_unparsed=0.2)
    assert isinstance(asked, LanguageJudge)
    assert (asked.configuration.batch, asked.configuration.reasons, asked.most_unparsed) == (3, False, 0.2)
    assert asked.name == "m, pref2A"
    default = open_judge(SERVER, kept, model="m")
    assert isinstance(default, LanguageJudge)
    assert default.configuration.name == "helpfulness"
    served = open_judge(f"{SERVER}#helpful", kept)
    assert isinstance(served, ServerJudge)
    assert served.name == "helpful"
    artifact = open_judge(str(reward.folder), kept)
    assert isinstance(artifact, ArtifactJudge)
    assert isinstance(open_judge(str(base), kept, configuration="pref2A"), PolicyJudge)


@pytest.mark.parametrize(
    ("judge", "keys", "told"),
    [
        (SERVER, {}, "--model: name a language model on .*, or a reward there as .*#name"),
        (SERVER, {"model": "m", "objective": "kind"}, "--objective: a language model has none"),
        (f"{SERVER}#kind", {"model": "m"}, "--model: it names a language model on a server, and .*#kind is none"),
        (f"{SERVER}#kind", {"configuration": "pref2A"}, "--config: .* is a reward model, which is asked nothing"),
        ("base", {"objective": "kind"}, "--objective: it chooses a reward, and base has none"),
    ],
)
def test_options_of_another_kind_of_judge_are_refused(
    judge: str, keys: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(BadOption, match=told):
        open_judge(judge, tmp_path / "kept.jsonl", **keys)


def test_a_reward_of_a_server_has_to_be_named() -> None:
    with pytest.raises(BadOption, match="#name or with --objective"):
        open_reward_judge(SERVER)
    assert isinstance(open_reward_judge(SERVER, "kind"), ServerJudge)
