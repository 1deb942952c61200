"""A rewards root: what is a model, what is not offered and why, and when a folder is another model."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from serve import counting

from tureen_core.artifact import Manifest, read_manifest
from tureen_serve.runtimes.bases import Bases
from tureen_serve.runtimes.rewards_root import find_clashes, list_sources, open_offered
from tureen_serve.runtimes.root_folder import Source, UnusableFolder, compute_state


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two rewards and an expert."""
    folder = tmp_path_factory.mktemp("made")
    base = tiny.base(folder / "base")
    tiny.reward(folder / "helpful", base, "helpful", 1)
    tiny.reward(folder / "many", base, "many", 2, objectives=["facts", "tone"])
    tiny.expert(folder / "academy", base, "academy", 3)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A root with the two rewards."""
    for name in ("helpful", "many"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def reasons(root: Path) -> dict[str, str]:
    found = list_sources(root, {})
    return {each.folder.name: each.reason for each in found if isinstance(each, UnusableFolder)}


def sources(root: Path) -> list[Source]:
    return [each for each in list_sources(root, {}) if isinstance(each, Source)]


def test_every_folder_with_a_manifest_is_a_model(root: Path) -> None:
    (root / "notes").mkdir()
    (root / "a-file").write_text("{}")
    shutil.copytree(root / "helpful", root / ".incoming")
    assert {each.folder.name: each.names for each in sources(root)} == {
        "helpful": ("helpful",),
        "many": ("facts", "tone"),
    }
    assert reasons(root) == {}


def test_links_out_of_the_root_are_refused_and_those_inside_are_not(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(root / "helpful", outside / "reward")
    (root / "linked").symlink_to(outside / "reward")
    shutil.copytree(root / "many", root / "half")
    (root / "half" / "more.json").symlink_to(outside / "reward" / "tureen.json")
    told = reasons(root)
    assert told == {
        "linked": "linked is a link out of the rewards root; copy what it points to",
        "half": "half/more.json is a link out of the rewards root; copy what it points to",
    }
    (root / "linked").unlink()
    (root / "linked").symlink_to(root / "helpful")
    assert "linked" not in reasons(root)


def test_a_source_opens_as_the_artifact_of_its_folder(root: Path) -> None:
    source = next(each for each in sources(root) if each.folder.name == "many")
    opened = open_offered(source, Bases(root / "cache"), "float32")
    assert opened.artifact.manifest == source.manifest
    assert [each.name for each in opened.rewards] == [each.name for each in source.offers] == ["facts", "tone"]
    assert source.artifact.fingerprint("float32") == opened.rewards[0].fingerprint


def test_a_reward_that_nobody_has_named_is_called_like_its_folder(root: Path, made: Path) -> None:
    for folder in ("polite", "short answers"):
        tiny.reward(root / folder, made / "base", folder.replace(" ", "-"), 4, objectives=["reward"])
    tiny.reward(root / "two", made / "base", "two", 5, objectives=["reward", "other"])
    found = {each.folder.name: each for each in sources(root)}
    assert (found["polite"].names, found["short answers"].names) == (("polite",), ("short-answers",))
    assert found["two"].names == ("reward", "other")
    assert find_clashes(list(found.values()), ()) == {}
    opened = open_offered(found["short answers"], Bases(root / "cache"), "float32")
    assert [each.name for each in opened.rewards] == ["short-answers"]
    assert [each.name for each in found["short answers"].offers] == ["short-answers"]


def test_a_folder_that_is_half_copied_is_not_offered(root: Path) -> None:
    weights = root / "helpful/adapter_model.safetensors"
    whole = weights.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:length])
        assert reasons(root)["helpful"].startswith("helpful: adapter_model.safetensors is not complete"), length
    weights.unlink()
    assert reasons(root) == {"helpful": "helpful: adapter_model.safetensors is missing; is it still being copied?"}
    weights.write_bytes(whole)
    assert reasons(root) == {}


def test_a_manifest_that_is_cut_or_strange_is_named(root: Path) -> None:
    path = root / "many/tureen.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    assert "many/tureen.json" in reasons(root)["many"]
    path.write_text(json.dumps({**json.loads(text), "surprise": 1}))
    assert "surprise" in reasons(root)["many"]


def test_an_expert_is_no_reward(root: Path, made: Path) -> None:
    shutil.copytree(made / "academy", root / "academy")
    assert reasons(root) == {"academy": "academy: it is a expert artifact, and only rewards are served here"}


def test_a_folder_whose_state_is_the_same_is_not_read_again(root: Path) -> None:
    first = {each.folder: each for each in list_sources(root, {})}
    second = {each.folder: each for each in list_sources(root, first)}
    assert all(second[folder] is each for folder, each in first.items())
    (root / "many/README.md").write_text("changed")
    third = {each.folder: each for each in list_sources(root, first)}
    assert third[root / "helpful"] is first[root / "helpful"]
    assert third[root / "many"].state != first[root / "many"].state


def test_a_folder_has_another_state_when_a_file_of_the_same_size_replaces_one(root: Path) -> None:
    path = root / "helpful/adapter_config.json"
    before = compute_state(root / "helpful")
    replaced = path.with_name("new")
    shutil.copy2(path, replaced)  # with the same time
    replaced.replace(path)
    assert compute_state(root / "helpful") != before


def test_a_root_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_sources(tmp_path / "nowhere", {})


# --------------------------------------------------------------------------- names


def source(folder: str, artifact: str, *names: str) -> Source:
    plain = counting.reward("calm").artifact.manifest
    objectives = [plain.objectives[0].model_copy(update={"name": name, "column": at}) for at, name in enumerate(names)]
    manifest: Manifest = plain.model_copy(update={"name": artifact, "objectives": objectives})
    return Source(Path("/models") / folder, folder, manifest, names)


def test_names_that_differ_do_not_clash() -> None:
    assert find_clashes([source("one", "one", "a"), source("two", "two", "b")], {"c"}, {"three"}) == {}


def test_of_two_equal_names_neither_is_offered() -> None:
    found = find_clashes([source("one", "one", "a", "b"), source("two", "two", "b"), source("three", "three", "c")], ())
    told = "two rewards are called 'b', in one and two; leave one out, or import it with other --objectives and --name"
    assert {folder.name: reason for folder, reason in found.items()} == {"one": f"one: {told}", "two": f"two: {told}"}


def test_two_artifacts_of_one_name_clash_although_their_rewards_differ() -> None:
    found = find_clashes([source("one", "same", "a"), source("two", "same", "b")], ())
    assert {folder.name for folder in found} == {"one", "two"}
    assert "two reward artifacts are called 'same'" in found[Path("/models/one")]


@pytest.mark.parametrize(("rewards", "artifacts"), [({"a"}, set()), (set(), {"one"})])
def test_names_of_the_start_are_taken(rewards: set[str], artifacts: set[str]) -> None:
    found = find_clashes([source("one", "one", "a"), source("two", "two", "b")], rewards, artifacts)
    assert [folder.name for folder in found] == ["one"]
    assert "was started with another" in found[Path("/models/one")]


def test_the_manifest_is_read_as_it_is(root: Path) -> None:
    assert sources(root)[0].manifest == read_manifest(root / "helpful")
