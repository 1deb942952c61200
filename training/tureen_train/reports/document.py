"""A page of headings, tables and pictures, written as Markdown and as one HTML file.

The Markdown file refers to the picture files beside it. The HTML file is made from the Markdown and contains the style
and the pictures, so that it can be sent alone.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

STYLE = Path(__file__).with_name("report.css")
SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")
REPORT = "report"


class Page:
    """A page that is filled from top to bottom. Every text is escaped, except those of :meth:`text` and :meth:`code`.

        page = Page("My run")
        page.table(("figure", "value"), [("accuracy", "0.73")])
        page.write(folder)

    Args:
        title: the title of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.blocks = [f"# {escape_markdown(title)}"]

    def heading(self, title: str) -> None:
        """Begin a section."""
        self.blocks.append(f"## {escape_markdown(title)}")

    def text(self, markdown: str) -> None:
        """Add a paragraph of Markdown. Escape names that a user chose with :func:`escape_markdown`."""
        self.blocks.append(markdown)

    def notes(self, lines: Sequence[str]) -> None:
        """Add a list of notes; nothing if there are none."""
        if lines:
            self.blocks.append("\n".join(f"- {escape_markdown(line)}" for line in lines))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> None:
        """Add a table. The first column is text; the others are numbers, aligned right, or with ``words`` text too."""
        ruler = ["---", *["---" if words else "---:"] * (len(header) - 1)]
        lines = [_row(header), f"|{'|'.join(ruler)}|", *map(_row, rows)]
        self.blocks.append("\n".join(lines))

    def facts(self, rows: Mapping[str, str]) -> None:
        """Add a table of two columns: names and values, both as text."""
        self.table(("", ""), list(rows.items()), words=True)

    def picture(self, path: Path, caption: str) -> None:
        """Add a picture from the page's folder, with a caption."""
        self.blocks.append(f"![{escape_markdown(caption)}]({path.name})")

    def code(self, text: str) -> None:
        """Add a block of preformatted text."""
        fence = "~" * (1 + max(3, *map(len, re.findall("~+", text)), 0))
        self.blocks.append(f"{fence}\n{text.rstrip()}\n{fence}")

    def write(self, folder: Path) -> Path:
        """Write ``report.md`` and ``report.html`` into the folder of the pictures. Returns the path of the first."""
        markdown = "\n\n".join(self.blocks) + "\n"
        path = folder / f"{REPORT}.md"
        path.write_text(markdown, encoding="utf-8")
        (folder / f"{REPORT}.html").write_text(self._html(markdown, folder), encoding="utf-8")
        return path

    def _html(self, markdown: str, folder: Path) -> str:
        reader = MarkdownIt("commonmark", {"html": False}).enable("table")
        reader.add_render_rule("image", lambda _, tokens, place, *__: _figure(tokens[place], folder))
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style></head>"
            f"<body><main>\n{reader.render(markdown)}</main></body></html>\n"
        )


def escape_markdown(text: str) -> str:
    """Escape a text, so that Markdown shows it literally and on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _figure(token: Any, folder: Path) -> str:
    """Render a picture as HTML that contains its bytes, with the caption below it."""
    caption = html.escape(token.content.replace("\\", ""))
    inside = base64.b64encode((folder / token.attrs["src"]).read_bytes()).decode()
    return f'<img alt="{caption}" src="data:image/png;base64,{inside}"><span class="says">{caption}</span>'
