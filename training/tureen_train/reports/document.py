"""A page of headings, tables and pictures, written twice: as Markdown beside its pictures, and as one HTML file.

The HTML file is made from the Markdown and holds style and pictures itself, so that it can be sent to somebody.
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
    """Grows from top to bottom; every text but :meth:`text` and :meth:`code` is escaped.

    Args:
        title: the first heading.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.blocks = [f"# {escape_markdown(title)}"]

    def heading(self, title: str) -> None:
        """A section begins."""
        self.blocks.append(f"## {escape_markdown(title)}")

    def text(self, markdown: str) -> None:
        """A paragraph in Markdown; what a user named goes through :func:`escape_markdown`."""
        self.blocks.append(markdown)

    def notes(self, lines: Sequence[str]) -> None:
        """A list of what a reader must know, if there is something."""
        if lines:
            self.blocks.append("\n".join(f"- {escape_markdown(line)}" for line in lines))

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> None:
        """A table; its first column is of words, the others are of numbers and stand on the right, or ``words`` too."""
        ruler = ["---", *["---" if words else "---:"] * (len(header) - 1)]
        lines = [_row(header), f"|{'|'.join(ruler)}|", *map(_row, rows)]
        self.blocks.append("\n".join(lines))

    def facts(self, rows: Mapping[str, str]) -> None:
        """A table of names and what they are, both words."""
        self.table(("", ""), list(rows.items()), words=True)

    def picture(self, path: Path, says: str) -> None:
        """A picture that lies in the page's folder, with what it says below."""
        self.blocks.append(f"![{escape_markdown(says)}]({path.name})")

    def code(self, text: str) -> None:
        """Text as it stands."""
        fence = "~" * (1 + max(3, *map(len, re.findall("~+", text)), 0))
        self.blocks.append(f"{fence}\n{text.rstrip()}\n{fence}")

    def write(self, folder: Path) -> Path:
        """``report.md`` and ``report.html`` in a folder that holds the pictures; the path of the first."""
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
    """Words that somebody chose, as Markdown that says just them on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def _figure(token: Any, folder: Path) -> str:
    """A picture inside the page; its words stand below it."""
    says = html.escape(token.content.replace("\\", ""))
    inside = base64.b64encode((folder / token.attrs["src"]).read_bytes()).decode()
    return f'<img alt="{says}" src="data:image/png;base64,{inside}"><span class="says">{says}</span>'
