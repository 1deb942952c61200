"""What other servers call ``input``: a text or token ids, one or several.

The first element tells which, so that a mistake is told of what was meant.
"""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from tureen.wire import Text

Ids = list[int]


def _sort(given: Any) -> str:
    if not isinstance(given, list):
        return "a text"
    first = given[0] if given else ""
    return "ids" if isinstance(first, int) else "lists of ids" if isinstance(first, list) else "texts"


Input = Annotated[
    Annotated[Text, Tag("a text")]
    | Annotated[list[Text], Tag("texts")]
    | Annotated[Ids, Tag("ids")]
    | Annotated[list[Ids], Tag("lists of ids")],
    Discriminator(_sort),
]
Texts = Annotated[
    Annotated[Text, Tag("a text")] | Annotated[list[Text], Tag("texts")],
    Discriminator(lambda given: "texts" if isinstance(given, list) else "a text"),
]


def is_single(given: Any) -> bool:
    """Whether it is one text, or the ids of one."""
    return isinstance(given, str) or (bool(given) and isinstance(given[0], int))


def list_inputs(given: Any) -> list[Any]:
    """A list of texts or ids, from one or several."""
    return [given] if is_single(given) else list(given)
