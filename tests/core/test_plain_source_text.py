"""What a text names: a folder, a hub name or a URL."""

from pathlib import Path

import pytest

from tureen_core.plain.source_text import HubName, is_url, parse_hub_name, resolve_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("Org-1/na.me_2", HubName("Org-1/na.me_2")),
        ("org/name@v1.0", HubName("org/name", "v1.0")),
        ("org/name@refs/pr/3", HubName("org/name", "refs/pr/3")),
        ("hf://org/name@main", HubName("org/name")),
        ("name", None),
        ("./name", None),
        ("../org/name", None),
        ("/org/name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("org/name@", None),
        ("s3://org/name", None),
    ],
)
def test_hub_names(text: str, expected: HubName | None, tmp_path: Path) -> None:
    assert parse_hub_name(text, tmp_path) == expected


def test_beside_a_folder_of_the_first_part_the_text_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()
    assert parse_hub_name("org/name", tmp_path) is None
    assert parse_hub_name("hf://org/name", tmp_path) == HubName("org/name")


def test_urls() -> None:
    assert [is_url(text) for text in ("s3://b/x", "memory://x", "C:/x", "a/b", "://x")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_paths_of_a_file_start_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert resolve_source("here/model", tmp_path) == (str(tmp_path / "here" / "model"), None)
    assert resolve_source("here/missing", tmp_path) == (str(tmp_path / "here" / "missing"), None)
    assert resolve_source("./org/name", tmp_path) == (str(tmp_path / "org" / "name"), None)
    assert resolve_source("/else/where", tmp_path) == ("/else/where", None)
    assert resolve_source("org/name@v2", tmp_path) == ("hf://org/name@v2", tmp_path / "org/name@v2")
    assert resolve_source("s3://bucket/model", tmp_path) == ("s3://bucket/model", None)
