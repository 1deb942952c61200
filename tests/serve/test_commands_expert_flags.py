"""The flags of experts: artifacts, each in its family, and experts of others."""

import json
from pathlib import Path

import pytest
from serve.artifacts import write_manifest

from tureen_serve.commands.expert_flags import ExpertFlags, group_experts
from tureen_serve.settings import ExpertEntry, FamilyEntry, SettingsError


def entry(path: Path, name: str | None = None, **choice: float) -> ExpertEntry:
    return ExpertEntry(path=path, name=name, **choice)


def refusal(flags: ExpertFlags, *known: FamilyEntry) -> str:
    with pytest.raises(SettingsError) as caught:
        group_experts(flags, known)
    return str(caught.value)


def test_artifacts_join_the_family_that_their_manifest_names(tmp_path: Path) -> None:
    folders = [write_manifest(tmp_path / name, name[0]) for name in ("a1", "a2", "b1")]
    known = [FamilyEntry(name="b", base="base", presets={"p": {"b1": 1}})]
    found = group_experts(ExpertFlags([str(each) for each in folders]), known)
    experts = {family.name: family.experts for family in found}
    assert experts == {"b": [entry(folders[2])], "a": [entry(folders[0]), entry(folders[1])]}
    assert (found[0].presets, found[0].base, found[1].base) == ({"p": {"b1": 1}}, "base", None)


def test_an_artifact_may_have_another_name_and_another_place_for_its_base(tmp_path: Path) -> None:
    folder = write_manifest(tmp_path / "a1", "a")
    (family,) = group_experts(ExpertFlags([f"calm={folder}"], base="elsewhere"))
    assert (family.base, family.experts) == ("elsewhere", [entry(folder, "calm")])


def test_a_folder_without_an_expert_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", write_manifest(tmp_path / "reward", None)):
        assert f"{folder} is not an expert artifact" in refusal(ExpertFlags([str(folder)]))
        assert f"--expert NAME={folder}" in refusal(ExpertFlags([str(folder)]))


def test_experts_of_others_make_a_family_with_the_bases_name(tmp_path: Path) -> None:
    flags = ExpertFlags([f"funny={tmp_path / 'x'}", f"dry={tmp_path / 'y'}"], base="models/tiny-1.5B", energy=0.9)
    (family,) = group_experts(flags)
    assert (family.name, family.base) == ("tiny-1.5B", "models/tiny-1.5B")
    assert family.experts == [
        entry(tmp_path / "x", "funny", energy=0.9),
        entry(tmp_path / "y", "dry", energy=0.9),
    ]
    assert group_experts(ExpertFlags(flags.folders, "models/tiny", family="f"))[0].name == "f"


def test_a_base_alone_is_a_family() -> None:
    (family,) = group_experts(ExpertFlags(base="tiny"))
    assert (family.name, family.base, family.experts) == ("tiny", "tiny", [])


def test_experts_of_others_join_the_artifacts_beside_them_or_the_only_family(tmp_path: Path) -> None:
    sealed, plain = write_manifest(tmp_path / "a1", "a"), f"funny={tmp_path / 'x'}"
    known = FamilyEntry(name="known", base="b")
    beside = group_experts(ExpertFlags([str(sealed), plain], base="B"), [known])
    assert {each.name: (each.base, len(each.experts)) for each in beside} == {"known": ("b", 0), "a": ("B", 2)}
    (only,) = group_experts(ExpertFlags([plain]), [known])
    assert (only.name, only.base, only.experts) == ("known", "b", [entry(tmp_path / "x", "funny")])
    apart = group_experts(ExpertFlags([plain], base="B"), [known])
    assert [each.name for each in apart] == ["known", "B"]
    named = group_experts(ExpertFlags([plain], family="known"), [known, FamilyEntry(name="other", base="b")])
    assert [len(each.experts) for each in named] == [1, 0]


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path / "a=b", "a")
    assert group_experts(ExpertFlags(["a=b"]))[0].experts == [entry(Path("a=b"))]


def test_flags_that_leave_something_open_are_refused(tmp_path: Path) -> None:
    plain, sealed = f"funny={tmp_path / 'x'}", str(write_manifest(tmp_path / "a1", "a"))
    families = [FamilyEntry(name="one", base="b"), FamilyEntry(name="two", base="b")]
    assert refusal(ExpertFlags([plain])) == "--base: say which model the experts of others stand on"
    assert refusal(ExpertFlags([plain]), *families) == "--family: say which one the experts of others join: one, two"
    assert "--family: give the family a name, since '/' cannot be one" in refusal(ExpertFlags([plain], base="/"))
    for flags in (ExpertFlags([sealed], rank=4), ExpertFlags([sealed], family="f"), ExpertFlags(accept_energy=0.5)):
        assert "are for experts of others" in refusal(flags)
    both = ExpertFlags([plain], base="B", rank=4, energy=0.9)
    assert "`rank` and `energy` exclude each other" in refusal(both)
    assert refusal(ExpertFlags([plain], base="B", energy=0.0)).startswith("--energy: ")
    assert refusal(ExpertFlags([plain], base="B", family="a b")).startswith("--family: ")


def test_a_policy_is_a_family_of_its_own(tmp_path: Path) -> None:
    folder = write_manifest(tmp_path / "ric", "tagged")
    found = group_experts(ExpertFlags(policies=[str(folder), f"other={folder}"]), [FamilyEntry(name="one", base="b")])
    assert [(each.name, each.policy) for each in found] == [("one", None), ("tagged", folder), ("other", folder)]
    assert "is not a policy artifact" in refusal(ExpertFlags(policies=[str(tmp_path)]))


@pytest.mark.parametrize(
    ("kind", "flag", "remedy"),
    [("policy", "folders", "--policy"), ("expert", "policies", "--expert"), ("reward", "policies", "--reward")],
)
def test_an_artifact_of_another_kind_is_told_its_flag(tmp_path: Path, kind: str, flag: str, remedy: str) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "tureen.json").write_text(json.dumps({"kind": kind, "steering": {"family": "f"}}))
    flags = ExpertFlags([str(folder)]) if flag == "folders" else ExpertFlags(policies=[str(folder)])
    assert refusal(flags) == f"{folder} is a {kind} artifact: give it with {remedy} {folder}"
