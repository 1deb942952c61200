"""Pages: the same words in Markdown and in HTML, whatever a user calls things."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tureen_train.reports.document import Page, escape_markdown

EVIL = "a|b*c_d <script>alert(1)</script> `x` [y](z) #1 \\ ~~~"


class Words(HTMLParser):
    """All words of a page, by the tag that they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.found: list[tuple[str, str]] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "meta"):
            self.images += [dict(attrs)] if tag == "img" else []
        else:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.found.append((self.inside[-1], data.strip()))


def written(page: Page, folder: Path) -> Words:
    path = page.write(folder)
    assert path == folder / "report.md"
    return Words((folder / "report.html").read_text())


def test_headings_tables_and_lists(tmp_path: Path) -> None:
    page = Page("Title")
    page.heading("Part")
    page.text("Some **bold** words.")
    page.table(("name", "value"), [("one", "1.0"), ("two", "–")])
    page.facts({"base": "smol"})
    page.notes(["first", "second"])
    page.notes([])
    found = written(page, tmp_path).found
    assert [each for each in found if each[0] in ("h1", "h2")] == [("h1", "Title"), ("h2", "Part")]
    assert ("strong", "bold") in found
    assert [word for tag, word in found if tag == "td"] == ["one", "1.0", "two", "–", "base", "smol"]
    assert [word for tag, word in found if tag == "li"] == ["first", "second"]
    assert "| one | 1.0 |" in (tmp_path / "report.md").read_text()


def test_what_a_user_named_is_shown_as_it_is(tmp_path: Path) -> None:
    page = Page(EVIL)
    page.text(f"It is called {escape_markdown(EVIL)}.")
    page.table(("name", EVIL), [(EVIL, "1")])
    page.notes([EVIL])
    found = written(page, tmp_path).found
    shown = dict(found)
    assert shown["h1"] == shown["title"] == EVIL
    assert shown["p"] == f"It is called {EVIL}."
    assert [word for tag, word in found if tag in ("th", "td", "li")] == ["name", EVIL, EVIL, "1", EVIL]
    assert not any(tag == "script" for tag, _ in found)


def test_line_breaks_do_not_break_a_table(tmp_path: Path) -> None:
    page = Page("x")
    page.table(("a", "b"), [("two\n\nlines", "1")])
    assert [word for tag, word in written(page, tmp_path).found if tag == "td"] == ["two lines", "1"]


def test_pictures_are_inside_the_html_and_beside_the_markdown(tmp_path: Path) -> None:
    (tmp_path / "dots.png").write_bytes(b"\x89PNG picture")
    page = Page("x")
    page.picture(tmp_path / "dots.png", "what it_shows")
    found = written(page, tmp_path)
    (image,) = found.images
    assert image["src"] == "data:image/png;base64," + base64.b64encode(b"\x89PNG picture").decode()
    assert image["alt"] == "what it_shows"
    assert ("span", "what it_shows") in found.found
    assert "](dots.png)" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("text", ["key: <value>\n  - 1\n", "~~~\nfences\n~~~~\n"])
def test_code_stands_as_it_is(text: str, tmp_path: Path) -> None:
    page = Page("x")
    page.code(text)
    page.text("after")
    found = written(page, tmp_path).found
    assert ("code", text.strip()) in found
    assert ("p", "after") in found


def test_the_html_asks_nobody_for_anything(tmp_path: Path) -> None:
    Page("x").write(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "http" not in text
    assert "src=" not in text
    assert "<style>" in text
