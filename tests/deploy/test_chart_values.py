import json
from typing import Any

import pytest
from deploy.helm import CHART, DEFAULTS, Helm, values_of, with_value, with_values
from serve.keys import make_entry

from tureen_core.steering import PromptSteering
from tureen_serve import settings
from tureen_serve.access_settings import AccessSettings
from tureen_serve.batch_settings import BatchSettings
from tureen_serve.security.key_entries import KeyEntry, KeyQuota
from tureen_serve.security.scopes import KeyScope
from tureen_serve.vllm_settings import VllmSettings

STARTER = values_of("starter")
FAR = {"name": "far", "steering": {"sentences": {"brief": "Be brief."}}}
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
OWNED_BY_THE_IMAGE = {"host", "port", "cache", "keys"}
OWNED_BY_THE_CHART = {"folder", "store"}  # the image's own, and a Secret's


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("starter", {"keys": {}}, "set keys.existingSecret, keys.entries or keys.values"),
        ("starter", {"keys.existingSecret": "mine"}, "exclude one another: keep one"),
        ("starter", {"keys.entries": [make_entry("loop")[1]]}, "exclude one another: keep one"),
        ("starter", {"starter": False}, "nothing to serve"),
        ("gpu", {"starter": True}, "set it to false"),
        ("starter", {"terminationGracePeriodSeconds": 80}, "must be more than 80"),
        ("starter", {"server.limits.grace_seconds": 70}, "must be more than 90"),
        ("starter", {"replicaCount": 2}, "replicaCount 2 cannot share a ReadWriteOnce cache"),
        ("starter", {"replicaCount": 2, "cache.accessMode": "ReadWriteOncePod"}, "share a ReadWriteOncePod cache"),
        ("replicas", {"cache.existingClaim": "models"}, "cache.persistent is false"),
        ("starter", {"rollout.maxSurge": 1}, "rollout.maxSurge must be 0"),
        ("replicas", {"rollout.maxSurge": 0}, "both 0"),
        ("gpu", {"gpu.count": 0}, "server.device cuda needs gpu.count"),
        ("gpu", {"server.device": "cpu"}, "gpu.count asks for devices"),
    ],
)
def test_contradictions_are_refused(any_helm: Helm, name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        any_helm.render(with_values(name, changes))


def levels(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Dotted paths of the maps in the values whose keys the schema knows, with their schemas."""
    if "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    if schema.get("additionalProperties") is not False:
        return {}
    found = {path: schema}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= levels(value, schema["properties"][key], f"{path}.{key}".lstrip("."))
    return found


LEVELS = levels(DEFAULTS, SCHEMA)


@pytest.mark.parametrize("level", LEVELS)
def test_unknown_values_are_refused(helm: Helm, level: str) -> None:
    with pytest.raises(RuntimeError, match="surprise"):
        helm.render(with_value(STARTER, f"{level}.surprise".lstrip("."), 1))


def test_helm_3_holds_to_the_schema_too(any_helm: Helm) -> None:
    with pytest.raises(RuntimeError, match="surprise"):
        any_helm.render(with_value(STARTER, "server.surprise", 1))


def test_every_value_is_in_the_schema_and_has_a_default() -> None:
    optional = {"global"}
    for level in set(LEVELS) - {
        "server",
        "server.limits",
        "server.vllm",
        "server.batches",
        "batches.workers.resources",
    }:
        values = DEFAULTS
        for key in filter(None, level.split(".")):
            values = values[key]
        assert set(LEVELS[level]["properties"]) - set(values) <= optional, level


@pytest.mark.parametrize(
    ("properties", "model", "owned"),
    [
        (LEVELS["server"]["properties"], settings.Settings, OWNED_BY_THE_IMAGE),
        (SCHEMA["definitions"]["limits"]["properties"], settings.ServerLimits, set()),
        (SCHEMA["definitions"]["access"]["properties"], AccessSettings, {"anonymous"}),  # the chart always has keys
        (SCHEMA["definitions"]["keyEntry"]["properties"], KeyEntry, set()),
        (SCHEMA["definitions"]["keyEntry"]["properties"]["quota"]["properties"], KeyQuota, set()),
        (SCHEMA["definitions"]["vllm"]["properties"], VllmSettings, set()),
        (SCHEMA["definitions"]["serverBatches"]["properties"], BatchSettings, OWNED_BY_THE_CHART),
        (SCHEMA["definitions"]["reward"]["properties"], settings.RewardEntry, {"tried"}),  # settings files fill it in
        (SCHEMA["definitions"]["family"]["properties"], settings.FamilyEntry, set()),
        (SCHEMA["definitions"]["upstream"]["properties"], settings.UpstreamEntry, set()),
        (SCHEMA["definitions"]["steering"]["properties"], PromptSteering, {"family"}),  # that in which it stands
        (SCHEMA["definitions"]["expert"]["properties"], settings.ExpertEntry, set()),
    ],
)
def test_schema_knows_the_settings_of_the_server(properties: dict[str, Any], model: Any, owned: set[str]) -> None:
    assert set(properties) == set(model.model_fields) - owned


def test_choices_of_the_schema_are_those_of_the_server() -> None:
    theirs = settings.Settings.model_json_schema()["properties"]
    ours = LEVELS["server"]["properties"]
    chosen = {name: theirs[name]["enum"] for name in ours if "enum" in theirs[name]}
    assert chosen == {name: schema["enum"] for name, schema in ours.items() if "enum" in schema}
    assert set(chosen) == {"runtime", "dtype", "log_level", "log_format"}
    assert SCHEMA["definitions"]["keyEntry"]["properties"]["scopes"]["items"]["enum"] == list(KeyScope)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("keys.values", ["short"]),
        ("keys.values", ["a key of more than sixteen"]),
        ("keys.values", ["#a-comment-and-no-key"]),
        ("keys.entries", [{**make_entry("loop")[1], "key": "plain"}]),
        ("keys.entries", [{**make_entry("loop")[1], "scopes": ["root"]}]),
        ("server.access.cors_origins", ["app.example.org"]),
        ("image.digest", "sha256:0"),
        ("image.tag", "a b"),
        ("image.repository", ""),
        ("server.device", "tpu"),
        ("server.families", [{"name": "bare"}]),
        ("server.families", [{"name": "far", "upstream": {"base_url": "http://far/v1", "model": "m"}}]),
        ("server.families", [{**FAR, "upstream": {"base_url": "http://name:secret@far/v1", "model": "m"}}]),
        ("server.families", [{**FAR, "upstream": {"base_url": "http://far/v1", "model": "m", "key": "secret"}}]),
        ("server.limits.drain_seconds", -1),
        ("server.aliases", {"mix": {"helpful": 0.3}}),
        ("server.batches.lines", 0),
        ("server.batches.lease_seconds", 0.3),
        ("server.batches.poll_seconds", 0),
        ("server.batches.files", "/var/spool/elsewhere"),
        ("batches.store.entry", "a b"),
        ("batches.store.existingSecret", "Postgres"),
        ("batches.persistence.accessMode", "ReadOnlyMany"),
        ("batches.persistence.size", "much"),
        ("tmp.size", "much"),
        ("probes.readiness.periodSeconds", 0),
        ("cache.accessMode", "ReadOnlyMany"),
        ("cache.size", "much"),
        ("gpu.resource", "gpu"),
        ("rollout.maxSurge", "25%"),
        ("service.port", 65536),
        ("nodeSelector", {"gpu": True}),
        ("nameOverride", "Bowl_"),
    ],
)
def test_bad_values_are_refused_by_name(helm: Helm, path: str, value: Any) -> None:
    with pytest.raises(RuntimeError, match=path.partition(".")[2].replace(".", "[./]") or path):
        helm.render(with_value(STARTER, path, value))
