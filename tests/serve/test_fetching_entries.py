"""What the file of a fetch may say."""

from pathlib import Path

import pytest

from tureen_serve.fetching.entries import FetchError, is_safe_name, make_entry, read_entries

DIGEST = f"sha256:{'a' * 64}"


def write(folder: Path, text: str) -> Path:
    file = folder / "sources.yaml"
    file.write_text(text)
    return file


def test_a_file_names_several_models(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"sources:\n- {{source: s3://b/x, to: x, digest: {DIGEST}}}\n"
        "- {source: org/name@main, to: bases/y, token_file: /run/token}\n",
    )
    first, second = read_entries(file, tmp_path / "models")
    assert (first.source, first.to, first.digest) == ("s3://b/x", tmp_path / "models" / "x", DIGEST)
    assert (second.to, second.token_file) == (tmp_path / "models" / "bases" / "y", Path("/run/token"))
    (only,) = read_entries(write(tmp_path, "sources: [{source: s3://b/x, to: /models/x}]"), None)
    assert only.to == Path("/models/x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a", "write `sources:`"),
        ("sources: {}", "sources: "),
        ("sources: [{source: s3://b/x}]", r"sources\.0\.to"),
        ("sources: [{source: s3://b/x, to: x, from: y}]", r"sources\.0\.from"),
        ("sources: [{source: '', to: x}]", r"sources\.0\.source"),
        ("sources: [{source: s3://b/x, to: x, digest: abc}]", r"sources\.0\.digest"),
        ("sources: [{source: s3://b/x, to: ../x}]", r"holds `\.\.`"),
        ("sources: [{source: s3://b/x, to: /etc/x}]", "is not below"),
        ("sources: [{source: s3://b/x, to: .}]", "is not below"),
        ("sources: [{source: a/b, to: x}, {source: a/c, to: x/y}]", "overlap"),
        ("sources: [", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FetchError, match=reason):
        read_entries(write(tmp_path, text), tmp_path / "models")


def test_without_a_root_paths_are_absolute(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"sources\.0\.to: x is relative"):
        read_entries(write(tmp_path, "sources: [{source: a/b, to: x}]"), None)


def test_flags_are_named_as_they_are_written() -> None:
    with pytest.raises(FetchError, match="--digest: "):
        make_entry(source="a/b", to=Path("x"), digest="sha256:1")


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/a", "a//b", "a\\b", "a\0b", "x" * 256, "a/" * 600 + "b"])
def test_names_that_lead_elsewhere_or_fit_nowhere_are_not_safe(name: str) -> None:
    assert not is_safe_name(name)
    assert is_safe_name("part/weights.safetensors")
