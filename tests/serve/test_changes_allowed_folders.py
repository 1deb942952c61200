"""Which folders a request may name."""

from pathlib import Path

import pytest

from tureen.errors import Unprocessable
from tureen_serve.changes.allowed_folders import find_allowed_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("root/v1/deep", "root/v2", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside/secret").write_text("x")
    (tmp_path / "root/current").symlink_to("v2")
    (tmp_path / "root/out").symlink_to(tmp_path / "outside")
    (tmp_path / "root/v1/weights").symlink_to(tmp_path / "outside/secret")
    (tmp_path / "root/file").write_text("x")
    (tmp_path / "alias").symlink_to("root")
    return tmp_path / "root"


@pytest.mark.parametrize("named", ["v2", "./v2", "current", "{root}/v2", "{root}/current", "{alias}/v2"])
def test_a_folder_below_a_root_is_found_also_by_a_link_inside(root: Path, named: str) -> None:
    text = named.format(root=root, alias=root.parent / "alias")
    assert find_allowed_folder(text, [root.parent / "outside", root.parent / "alias"]) == root / "v2"


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("../outside", "`..`"),
        ("v2/../../outside", "`..`"),
        ("v2\0", "zero byte"),
        ("out", "link out of its root"),
        ("out/deeper", "link out of its root"),
        ("v1", "v1/weights is a link out of its root"),
        ("{root}", "no folder below"),
        (".", "no folder below"),
        ("file", "no folder below"),
        ("v3", "no folder below"),
        ("{root}/../outside", "`..`"),
        ("{outside}", "no folder below"),
        ("/etc/passwd", "no folder below"),
        ("/nowhere", "no folder below"),
        ("hf://org/name", "no folder below"),
        ("s3://bucket/model", "no folder below"),
        ("~/v2", "no folder below"),
    ],
)
def test_everything_else_is_refused(root: Path, named: str, says: str) -> None:
    text = named.format(root=root, outside=root.parent / "outside")
    with pytest.raises(Unprocessable, match=says) as caught:
        find_allowed_folder(text, [root])
    assert (caught.value.param, caught.value.code) == ("path", "path_not_allowed")


def test_without_roots_nothing_is_allowed(root: Path) -> None:
    with pytest.raises(Unprocessable, match="has no `load_roots`"):
        find_allowed_folder(str(root / "v2"), [])
