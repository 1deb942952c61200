"""The type of ``input`` in other protocols: one text, several texts, the token ids of one text, or those of several.

The first element decides which of these is checked, so that an error names the right field.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from tureen.wire import MAX_TEXTS, Many, Text

Ids = Annotated[list[int], Many()]
TextList = Annotated[list[Text], Many(MAX_TEXTS)]
FilledTexts = Annotated[list[Text], Many(MAX_TEXTS, least=1)]
IdLists = Annotated[list[Ids], Many(MAX_TEXTS)]


def _sort(given: Any) -> str:
    if not isinstance(given, list):
        return "a text"
    first = given[0] if given else ""
    return "ids" if isinstance(first, int) else "lists of ids" if isinstance(first, list) else "texts"


Input = Annotated[
    Annotated[Text, Tag("a text")]
    | Annotated[TextList, Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[IdLists, Tag("lists of ids")],
    Discriminator(_sort),
]
Texts = Annotated[
    Annotated[Text, Tag("a text")] | Annotated[TextList, Tag("texts")],
    Discriminator(lambda given: "texts" if isinstance(given, list) else "a text"),
]


def is_single(given: Any) -> bool:
    """Whether the input is one text, or the token ids of one text."""
    return isinstance(given, str) or (bool(given) and isinstance(given[0], int))


def list_inputs(given: Any) -> list[Any]:
    """Return the inputs as a list, also where there is only one."""
    return [given] if is_single(given) else list(given)
