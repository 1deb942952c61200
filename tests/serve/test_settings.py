"""Settings: where they come from, which one wins, and the sentence for each that is bad."""

from pathlib import Path

import pytest
from serve.artifacts import write_manifest

from tureen_serve.settings import RewardEntry, Settings, SettingsError, build_starter_settings, load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "server.yaml"
    path.write_text(text)
    return path


def refusal(config: Path | None = None, **flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, **flags)
    return str(caught.value)


def test_defaults_bind_to_loopback_and_bound_the_work() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.runtime) == ("127.0.0.1", 8900, "auto")
    assert settings.limits.body_bytes == 8 * 2**20
    assert settings.limits.in_flight == 512
    assert settings.limits.longest_deadline_seconds > settings.limits.deadline_seconds


def test_a_file_names_artifacts_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "models" / "base").mkdir(parents=True)
    for name in ("adapters", "many", "rewards", "tokenizer"):
        (tmp_path / name).mkdir()
    (tmp_path / "models/base/config.json").write_text("{}")
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    config = write(
        tmp_path,
        """
        rewards:
          - path: rewards/helpful
          - {path: /elsewhere/harmless, name: safe}
          - {path: Skywork/Reward@v2, template: chatml, tokenizer: org/other}
          - {path: "s3://bucket/reward", template: chat.jinja, tokenizer: tokenizer, objectives: [good]}
          - {path: adapters/warm, adapter_base: models/base, template: missing.jinja}
        families:
          - name: smol
            base: models/base
            experts: [experts/academy, ../entertainment]
            presets: {playful: {entertainment: 1}}
            default: {academy: 0.5, entertainment: 0.5}
            semantics: factor
            normalize: none
        rewards_root: many
        bases: {org/base: models/base}
        cache: cache
        """,
    )
    settings = load_settings(config)
    assert settings.rewards == [
        RewardEntry(path=tmp_path / "rewards/helpful"),
        RewardEntry(path=Path("/elsewhere/harmless"), name="safe"),
        RewardEntry(
            path="hf://Skywork/Reward@v2",
            template="chatml",
            tokenizer="org/other",
            tried=tmp_path / "Skywork/Reward@v2",
        ),
        RewardEntry(
            path="s3://bucket/reward",
            template=str(tmp_path / "chat.jinja"),
            tokenizer=str(tmp_path / "tokenizer"),
            objectives=("good",),
        ),
        RewardEntry(
            path=tmp_path / "adapters/warm",
            adapter_base=str(tmp_path / "models/base"),
            template=str(tmp_path / "missing.jinja"),
        ),
    ]
    family = settings.families[0]
    assert family.base == str(tmp_path / "models/base")
    assert [each.path for each in family.experts] == [tmp_path / "experts/academy", tmp_path / "../entertainment"]
    assert family.presets == {"playful": {"entertainment": 1.0}}
    assert (family.semantics, family.normalize) == ("factor", "none")
    assert settings.bases == {"org/base": tmp_path / "models/base"}
    assert (settings.cache, settings.rewards_root) == (tmp_path / "cache", tmp_path / "many")


def test_a_base_that_is_no_folder_beside_the_file_stays_a_name(tmp_path: Path) -> None:
    config = write(tmp_path, "families: [{name: smol, base: smollm2-135m-instruct}]")
    assert load_settings(config).families[0].base == "smollm2-135m-instruct"


def test_a_preset_called_like_a_path_is_not_taken_for_one(tmp_path: Path) -> None:
    config = write(tmp_path, "families: [{name: a, base: b, presets: {keys: {path: 1.0}}}]")
    assert load_settings(config).families[0].presets == {"keys": {"path": 1.0}}


def test_an_alias_called_like_a_path_is_not_taken_for_one(tmp_path: Path) -> None:
    config = write(tmp_path, "aliases: {keys: helpful, bases: harmless}")
    assert load_settings(config).aliases == {"keys": "helpful", "bases": "harmless"}


def test_flags_win_over_environment_and_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path, "{port: 1001, dtype: float32, device: cpu, limits: {in_flight: 3, body_bytes: 10}}")
    monkeypatch.setenv("TUREEN_PORT", "1002")
    monkeypatch.setenv("TUREEN_DTYPE", "bfloat16")
    monkeypatch.setenv("TUREEN_LIMITS__IN_FLIGHT", "4")
    settings = load_settings(config, port=1003, dtype=None)
    assert (settings.port, settings.dtype, settings.device) == (1003, "bfloat16", "cpu")
    assert (settings.limits.in_flight, settings.limits.body_bytes) == (4, 10)


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_REWARDS", '[{"path": "/models/helpful"}]')
    assert load_settings().rewards == [RewardEntry(path=Path("/models/helpful"))]
    monkeypatch.setenv("TUREEN_REWARDS", "/models/helpful")
    assert "as JSON" in refusal()


def test_settings_of_others_in_the_environment_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUREEN_BASE_URL", "http://localhost:8900")
    assert load_settings().port == 8900


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot: 80", "prot"),
        ("port: 70000", "port"),
        ("port: eighty", "port"),
        ("rewards: [{folder: a}]", "rewards.0"),
        ("rewards: [{path: a, name: 'a b'}]", "rewards.0.name"),
        ("rewards_root: nowhere", "nowhere is not a folder"),
        ("bases: {org/base: nowhere}", "bases.org/base: "),
        ("rewards_memory_gib: 2", "set that too"),
        ("families: [{name: a}]", "needs `experts`, a `policy`, an `upstream`, or a `base`"),
        ("families: [{name: a, base: b}, {name: a, base: b}]", "two families have the same name"),
        ("families: [{name: a, base: b, default: {x: .nan}}]", "families.0.default.x"),
        ("families: [{name: a, base: b, semantics: sum}]", "'delta' or 'factor'"),
        ("limits: {in_flight: 0}", "limits.in_flight"),
        ("limits: {inflight: 1}", "limits.inflight"),
        ("runtime: jax", "'auto', 'transformers' or 'vllm'"),
        ("log_level: loud", "log_level"),
        ("[1, 2]", "must be a YAML map"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_is_unknown_or_bad_in_a_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(write(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nowhere.yaml cannot be read" in refusal(tmp_path / "nowhere.yaml")


def test_an_empty_file_is_no_settings(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "# nothing\n")).model_dump() == load_settings().model_dump()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_binding_beyond_loopback_needs_keys(host: str, tmp_path: Path) -> None:
    assert "set `keys`" in refusal(host=host)
    (tmp_path / "keys").write_text("k" * 32)
    assert load_settings(host=host, keys=tmp_path / "keys").host == host


def test_everyone_is_served_only_where_the_settings_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("k" * 32)
    assert load_settings(host="0.0.0.0", access={"anonymous": True}).keys is None
    assert "keep one of them" in refusal(keys=tmp_path / "keys", access={"anonymous": True})
    monkeypatch.setenv("TUREEN_KEYS", "")  # as one takes back what an image sets
    monkeypatch.setenv("TUREEN_ACCESS__ANONYMOUS", "true")
    assert load_settings(host="0.0.0.0").keys is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert load_settings(host=host).keys is None


def test_a_keys_file_must_be_there(tmp_path: Path) -> None:
    assert "none is not a file" in refusal(keys=tmp_path / "none")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_no_key_can_be_given_by_a_field() -> None:
    assert not any("key" in name and name != "keys" for name in Settings.model_fields)


def test_the_starter_is_every_artifact_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tureen_serve.settings.STARTER", tmp_path)
    with pytest.raises(SettingsError, match="make starter"):
        build_starter_settings()
    write_manifest(tmp_path / "rewards" / "helpful", None)
    for name in ("literature", "academy"):
        write_manifest(tmp_path / "experts" / name, "smollm2")
    found = load_settings(**build_starter_settings())
    assert [Path(entry.path).name for entry in found.rewards] == ["helpful"]
    assert [each.path.name for each in found.families[0].experts] == ["academy", "literature"]
    assert found.families[0].name == "smollm2"
    assert found.families[0].presets["playful"] == {"entertainment": 1.0}
