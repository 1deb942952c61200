"""How manifests say steering: what they may not say, and that soups are stored as they were."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tureen_core.manifest import Manifest
from tureen_core.manifest_file import MANIFEST
from tureen_core.reading import Reading
from tureen_core.steering import PromptSteering, SoupSteering, Steering, TaggedReward, TagSteering
from tureen_serve.settings import STARTER

PARSER: TypeAdapter[Steering] = TypeAdapter(Steering)
HARMLESS = {"name": "harmless", "data": "a" * 64, "mean": -0.5, "deviation": 2.0, "low": -4.0, "high": 4.0}
HELPFUL = {**HARMLESS, "name": "helpful", "mean": 1.0}
TAGS: dict[str, Any] = {"method": "reward-tags", "family": "ric", "objectives": [HARMLESS, HELPFUL]}
WORDS: dict[str, Any] = {"method": "prompt", "family": "said", "sentences": {"brief": "Be brief.", "kind": "Be kind."}}


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in STARTER.glob("*/*/tureen.json")), ids=lambda f: f.name
)
def test_the_packaged_artifacts_keep_their_digests(folder: Path) -> None:
    stored = (folder / MANIFEST).read_text()
    manifest = Manifest.model_validate_json(stored)
    assert manifest.version == manifest.identity()[:12]
    assert json.loads(manifest.model_dump_json()).get("steering") == json.loads(stored).get("steering")


def test_a_soup_is_stored_as_before() -> None:
    soup = PARSER.validate_python({"family": "smol"})  # the method was the default
    assert soup == SoupSteering(family="smol")
    stored = {"method": "soup", "family": "smol", "semantics": "delta", "normalize": "simplex"}
    assert (soup.model_dump(), PARSER.validate_json(json.dumps(stored))) == (stored, soup)


@pytest.mark.parametrize("value", [TAGS, WORDS])
def test_steering_in_the_prompt_survives_json(value: dict[str, Any]) -> None:
    made = PARSER.validate_python(value)
    assert PARSER.validate_json(made.model_dump_json()) == made
    assert isinstance(made, TagSteering if value is TAGS else PromptSteering)


def test_a_raw_reward_is_normalised_by_its_statistics() -> None:
    """The published statistics of RiC's data for the harmless and the helpful reward."""
    published = {"harmless": (-0.94732502, 1.92034349), "helpful": (-0.01500361, 1.40736504)}
    made = {
        name: TaggedReward(name=name, data="", mean=mean, deviation=deviation, low=-4, high=4)
        for name, (mean, deviation) in published.items()
    }
    assert {name: round(each.normalise(0.3), 1) for name, each in made.items()} == {"harmless": 0.6, "helpful": 0.2}


@pytest.mark.parametrize(
    ("value", "change", "message"),
    [
        (TAGS, {"method": "telepathy"}, "does not match any of the expected tags: 'soup', 'reward-tags', 'prompt'"),
        (TAGS, {"objectives": []}, "at least 1 item"),
        (TAGS, {"objectives": [HELPFUL, HELPFUL]}, "objectives: helpful is given twice"),
        (TAGS, {"objectives": [{**HELPFUL, "deviation": 0.0}]}, "greater than 0"),
        (TAGS, {"objectives": [{**HELPFUL, "mean": float("nan")}]}, "finite number"),
        (TAGS, {"objectives": [{**HELPFUL, "low": 4.0}]}, "the range of helpful is empty: low 4 is not below high 4"),
        (TAGS, {"objectives": [{**HELPFUL, "high": 1.25}]}, "more than 1 decimals: round low up and high down"),
        (TAGS, {"objectives": [{**HELPFUL, "name": "a b"}]}, "'a b': use 1 to 64 of letters"),
        (TAGS, {"tag": "<rm{index}>"}, r"tag: it needs \{score\}"),
        (TAGS, {"tag": "{score} "}, r"tag: it needs \{index\} or \{name\}"),
        (TAGS, {"sentences": {}}, "sentences"),
        (WORDS, {"sentences": {}}, "at least 1 item"),
        (WORDS, {"sentences": {"brief": " "}}, "the sentence of brief is empty"),
        (WORDS, {"sentences": [{"objective": "a", "text": "x"}, {"objective": "a", "text": "y"}]}, "a is given twice"),
        (WORDS, {"threshold": 1.5}, "less than or equal to 1"),
        (WORDS, {"template": "{message}"}, r"template: it needs \{sentences\} once"),
        (WORDS, {"template": "{message}{message}{sentences}"}, r"template: it needs \{message\} once"),
    ],
)
def test_what_steering_may_not_say(value: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PARSER.validate_python({**value, **change})


def policy(**changes: Any) -> Manifest:
    fields = {"kind": "policy", "name": "ric", "weights": "full", "reading": Reading(), "steering": TAGS, **changes}
    return Manifest.model_validate({"objectives": [{"name": "harmless"}, {"name": "helpful"}], **fields})


def test_a_policys_objectives_are_those_it_is_steered_by() -> None:
    assert policy().steering == PARSER.validate_python(TAGS)
    with pytest.raises(ValidationError, match=r"steering: it has the objectives \['harmless', 'helpful'\]"):
        policy(objectives=[{"name": "helpful"}, {"name": "harmless"}])


@pytest.mark.parametrize("kind", ["reward", "expert"])
def test_only_a_policy_is_steered_in_its_prompt(kind: str) -> None:
    with pytest.raises(ValidationError, match="only a policy is steered by reward-tags; say kind: policy"):
        policy(kind=kind, objectives=[{"name": "harmless"}, {"name": "helpful", "column": 1}])


@pytest.mark.parametrize(
    "change",
    [
        {"mapping": "linf"},
        {"decimals": 2},
        {"tag": "<{name}> {score} "},
        {"place": "system"},
        {"objectives": [HARMLESS, {**HELPFUL, "mean": 1.1}]},
        {"objectives": [HARMLESS, {**HELPFUL, "deviation": 2.1}]},
        {"objectives": [HARMLESS, {**HELPFUL, "high": 3.9}]},
        {"objectives": [HARMLESS, {**HELPFUL, "data": "b" * 64}]},
    ],
)
def test_the_identity_covers_the_tags(change: dict[str, Any]) -> None:
    assert policy(steering={**TAGS, **change}).identity() != policy().identity()


def test_the_identity_covers_the_sentences_and_their_order() -> None:
    def identify(**changes: Any) -> str:
        named = [{"name": name} for name in changes.get("sentences", WORDS["sentences"])]
        return policy(steering={**WORDS, **changes}, objectives=named).identity()

    swapped = dict(reversed(WORDS["sentences"].items()))
    changes: list[dict[str, Any]] = [
        {"sentences": swapped},
        {"threshold": 0.2},
        {"template": "{sentences} {message}"},
        {"joiner": "\n"},
    ]
    assert len({identify(), *(identify(**each) for each in changes)}) == 5


def test_the_identity_of_a_soup_is_computed_as_in_earlier_versions() -> None:
    steering = {"method": "soup", "family": "smol", "semantics": "delta", "normalize": "simplex"}
    base = {"model": "some/folder", "digest": "d" * 64}
    fields = {"kind": "expert", "weights": "lora", "base": base, "steering": steering}
    made = policy(**fields, objectives=[{"name": "kind"}])
    parts = {
        **{"kind": "expert", "weights": "lora", "steering": steering, "files": {}, "base": "d" * 64},
        "objectives": [{"name": "kind", "column": 0, "calibration": {"mean": 0.0, "std": 1.0, "temperature": 1.0}}],
        "reading": made.reading.model_dump(),
    }
    assert made.identity() == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
