"""The forms in which a file names the experts of a family."""

from pathlib import Path

import pytest

from tureen_serve.settings import ExpertEntry, FamilyEntry, SettingsError, load_settings

A, B = ExpertEntry(path=Path("/a"), name="calm"), ExpertEntry(path=Path("/b"), name="dry", rank=8)


def experts(folder: Path, text: str) -> list[ExpertEntry]:
    path = folder / "server.yaml"
    path.write_text(f"families: [{{name: tiny, base: base, experts: {text}}}]")
    return load_settings(path).families[0].experts


@pytest.mark.parametrize(
    "text",
    [
        "{calm: /a, dry: {path: /b, rank: 8}}",
        "[{path: /a, name: calm}, {name: dry, path: /b, rank: 8}]",
    ],
)
def test_a_map_and_a_list_say_the_same(tmp_path: Path, text: str) -> None:
    assert experts(tmp_path, text) == [A, B]


def test_folders_start_at_the_files_folder_in_every_form(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    named, bare = ExpertEntry(path=folder, name="calm"), ExpertEntry(path=folder)
    assert experts(tmp_path, "{calm: a}") == experts(tmp_path, "{calm: {path: a}}") == [named]
    assert experts(tmp_path, "[{path: a, name: calm}]") == [named]
    assert experts(tmp_path, "[a]") == experts(tmp_path, "[{path: a}]") == [bare]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{calm: }", "families.0.experts.0"),
        ("[{calm: a}]", "families.0.experts.0"),
        ("{'a b': a}", "families.0.experts.0.name"),
        ("{calm: {path: a, rank: 0}}", "families.0.experts.0.rank"),
        ("{calm: {path: a, energy: 1.5}}", "families.0.experts.0.energy"),
        ("{calm: {path: a, rank: 2, energy: 0.5}}", "`rank` and `energy` exclude each other"),
        ("a", "families.0.experts"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        experts(tmp_path, text)
    assert says in str(caught.value)


def read_family(folder: Path, text: str) -> FamilyEntry:
    path = folder / "server.yaml"
    path.write_text(f"families: [{text}]")
    return load_settings(path).families[0]


def test_a_policy_is_a_folder_and_its_steering_has_the_familys_name(tmp_path: Path) -> None:
    assert read_family(tmp_path, "{name: ric, policy: here}").policy == tmp_path / "here"
    told = read_family(tmp_path, "{name: told, base: b, steering: {sentences: {calm: Be calm., dry: Be dry.}}}")
    assert told.steering is not None
    assert (told.steering.family, told.steering.names) == ("told", ["calm", "dry"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{name: a}", "needs `experts`, a `policy`, an `upstream`, or a `base`"),
        ("{name: a, policy: p, experts: [e]}", "experts: it is for soups"),
        ("{name: a, policy: p, semantics: delta}", "semantics: it is for soups"),
        ("{name: a, base: b, normalize: none, steering: {sentences: {c: d}}}", "normalize: it is for soups"),
        ("{name: a, base: b, steering: {sentences: {}}}", "families.0.steering.sentences"),
        ("{name: a, base: b, steering: {sentences: {c: d}, threshold: 2}}", "families.0.steering.threshold"),
        ("{name: a, base: b, steering: {method: reward-tags, sentences: {c: d}}}", "families.0.steering.method"),
        ("{name: a, steering: {sentences: {c: d}}}", "needs `experts`, a `policy`, an `upstream`, or a `base`"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_family(tmp_path, text)
    assert says in str(caught.value)


FAR = "name: far, steering: {sentences: {brief: Be brief.}}"


def test_an_upstream_has_its_address_its_model_and_its_limits(tmp_path: Path) -> None:
    url = "https://api.example.org/v1/"
    found = read_family(tmp_path, f"{{{FAR}, upstream: {{base_url: '{url}', model: large, key_file: key}}}}").upstream
    assert found is not None
    assert (found.base_url, found.model, found.key_file) == ("https://api.example.org/v1", "large", tmp_path / "key")
    assert (found.honours, found.concurrency, found.connect_seconds, found.idle_seconds) == ([], 32, 5.0, 120.0)
    assert (found.retries, found.limit_field, found.extra) == (3, "max_tokens", {})


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("name: far", "", "give `steering` with `sentences`"),
        (f"{FAR}, base: base", "", "base: the upstream writes the texts"),
        (f"{FAR}, policy: policy", "", "policy: the upstream writes the texts"),
        (f"{FAR}, experts: [a]", "", "experts: it is for soups"),
        (FAR, "base_url: 'ftp://far/v1'", "it must start with http://"),
        (FAR, "base_url: 'http://name:secret@far/v1'", "give the key by key_env or key_file"),
        (FAR, "base_url: 'http://far/v1?key=secret'", "give the key by key_env or key_file"),
        (FAR, "key: secret", "families.0.upstream.key"),
        (FAR, "key_env: 'a b'", "families.0.upstream.key_env"),
        (FAR, "key_env: A, key_file: b", "exclude each other"),
        (FAR, "extra: {seed: 1}", "extra.seed: the server sets this field"),
        (FAR, "honours: [top_k], extra: {top_k: 5}", "extra.top_k: the server sets this field"),
        (FAR, "honours: [best_of]", "families.0.upstream.honours.0"),
        (FAR, "concurrency: 0", "families.0.upstream.concurrency"),
    ],
)
def test_an_upstream_that_cannot_be_asked_is_named(tmp_path: Path, family: str, more: str, says: str) -> None:
    url = "" if "base_url" in more else "base_url: 'http://far/v1', "
    with pytest.raises(SettingsError) as caught:
        read_family(tmp_path, f"{{{family}, upstream: {{{url}model: large, {more}}}}}")
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)
