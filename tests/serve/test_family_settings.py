"""The forms in which a file names the experts of a family."""

from pathlib import Path

import pytest

from tureen_serve.settings import ExpertEntry, SettingsError, load_settings

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
