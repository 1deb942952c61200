"""Items to label, read one at a time.

A line that is no item is yielded with its error, and reading goes on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from tureen import item_files
from tureen.errors import TureenError, Unprocessable
from tureen.item_forms import DEFAULT, RowReading, check_fields, make_item
from tureen.records.text_files import name_row
from tureen.validation import explain_errors
from tureen.wire import MAX_CANDIDATES, Candidate, Message, Prompt, TemplateRequest, Text

Messages = list[Message]

BESIDE = {"tools", "chat_template_kwargs"}


class Item(TemplateRequest):
    """A prompt with two or more candidates, and further columns for its rows.

    Attributes:
        id: the id of the rows; by default the file's name and the line.
        subset: RewardBench's column.
        models: who wrote each candidate, for RewardBench's ``chosen_model`` and ``rejected_model``.
    """

    prompt: Prompt
    candidates: Annotated[list[Candidate], Field(min_length=2, max_length=MAX_CANDIDATES)]
    id: Text | int | None = None
    subset: Text | None = None
    models: list[Text] | None = None

    @model_validator(mode="after")
    def _a_model_each(self) -> "Item":
        if self.models is not None and len(self.models) != len(self.candidates):
            raise ValueError(f"`models` names {len(self.models)} and there are {len(self.candidates)} candidates")
        return self

    def request(self) -> dict[str, Any]:
        """Return the item's part of a request body."""
        return self.model_dump(include={"prompt", "candidates", *BESIDE}, exclude_none=True)

    def conversation(self) -> tuple[Messages, list[Messages]]:
        """Return the prompt and each candidate as messages. A text becomes a turn of the user or the assistant."""
        prompt = [Message(role="user", content=self.prompt)] if isinstance(self.prompt, str) else self.prompt
        answers = [
            [Message(role="assistant", content=each)] if isinstance(each, str) else each for each in self.candidates
        ]
        return prompt, answers


@dataclass(frozen=True)
class Line:
    """An item with its place, or an error in its stead.

    Attributes:
        number: of the line in JSON Lines, of the item in other files; counted from 1.
        id: the item's own, or ``in.jsonl:7``.
        place: ``in.jsonl, line 7``.
        columns: of preference data: the treatment of the columns that are not the form's own.
    """

    number: int
    id: str
    place: str
    item: Item | None = None
    error: TureenError | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def read_items(path: Path, reading: RowReading = DEFAULT) -> Iterator[Line]:
    """Read the items of a file, in order. A repeated id is an error, as it is for a batch's ``custom_id``.

    16 bytes of each id are kept in memory, so files of millions of items can be read.

    Args:
        path: the file.
        reading: how its rows become items.

    Raises:
        Unprocessable: the file as a whole cannot be read, or needs a package that is not installed.
        OSError: it is not there.
    """
    seen: set[bytes] = set()
    unit = item_files.find_unit(path)
    for number, raw in item_files.iterate_items(path):
        line = parse_item(raw, number, name_row(path.name, number), f"{path}, {unit} {number}", reading)
        digest = blake2b(line.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in seen and line.item is not None:
            message = f"the id {line.id!r} stands on another line too"
            line = replace(line, item=None, error=Unprocessable(message, param="id", code="duplicate_id"))
        seen.add(digest)
        yield line


def parse_item(raw: Any, number: int, fallback: str, place: str, reading: RowReading = DEFAULT) -> Line:
    """Read one decoded row as an item, or as the error in its place."""
    made = make_item(raw, reading)
    given = made.item
    if isinstance(given, TureenError):
        return Line(number, fallback, place, error=given)
    try:
        check_fields(given, Item.model_fields)
        item = Item.model_validate(given)
    except Unprocessable as error:
        return Line(number, fallback, place, error=error)
    except ValidationError as invalid:
        return Line(number, fallback, place, error=explain_errors(invalid.errors(include_url=False), given))
    return Line(number, fallback if item.id is None else str(item.id), place, item, columns=made.columns)


def list_requests(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """List the request bodies of the lines that are items."""
    return [line.item.request() for line in lines if line.item is not None]
