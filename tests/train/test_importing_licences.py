"""Where the licences of imported weights come from."""

from pathlib import Path

import pytest

from tureen_train.importing.licences import LicenceError, find_licences, read_card_licence


def card(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ("---\nbase_model: x\nlicense: other\nlicense_name: llama3.2\n---\n", "llama3.2"),
        ("---\nbase_model: x\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("---\n[license\n---\n", None),
        ("---\n- license\n---\n", None),
        ("", None),
    ],
)
def test_a_model_card_names_its_licence_in_its_front_matter(tmp_path: Path, text: str, licence: str | None) -> None:
    assert read_card_licence(card(tmp_path / "model", text)) == licence


def test_the_users_word_goes_before_the_cards_and_one_of_them_is_needed(tmp_path: Path) -> None:
    source = card(tmp_path / "source", "---\nlicense: mit\n---\n")
    base = card(tmp_path / "base", "---\nlicense: apache-2.0\n---\n")
    assert find_licences([], [source, base]) == ["mit", "apache-2.0"]
    assert find_licences([], [source, source]) == ["mit"]
    assert find_licences([], [tmp_path, base]) == ["apache-2.0"]
    assert find_licences(["CC BY 4.0"], [source, base]) == ["CC BY 4.0"]
    with pytest.raises(LicenceError, match="say it with --licence"):
        find_licences([], [tmp_path])
