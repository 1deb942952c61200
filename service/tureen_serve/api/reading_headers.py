"""Headers that tell how texts were read, for replies whose bodies have no field for it: those of other protocols."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response

from tureen_serve.api.strict_route import StrictRoute
from tureen_serve.inference.engine import Outcome

NORMALISED = "x-tureen-normalised"
TRUNCATED = "x-tureen-truncated"
TOLD = {
    NORMALISED: "The number of texts that were not read as they were sent: end marks were removed, control marks were "
    "read as plain text, or a field was left out. Without the header there are none.",
    TRUNCATED: "The number of texts that were cut to fit. Without the header there are none.",
}


@dataclass
class ReadingNotes:
    """How the texts of one request were read.

    Attributes:
        normalised: the number of texts that were not read as they were sent.
        truncated: the number of texts that were cut.
    """

    normalised: int = 0
    truncated: int = 0

    def add_outcome(self, outcome: Outcome) -> None:
        """Count one text."""
        self.normalised += bool(outcome.normalised)
        self.truncated += outcome.truncated

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the counts that are not 0."""
        counts = {NORMALISED: self.normalised, TRUNCATED: self.truncated}
        return {name: str(count) for name, count in counts.items() if count}


class NotedRoute(StrictRoute):
    """A route whose reply has the headers of the notes in ``request.state.notes``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the strict handler; it adds the headers to its reply."""
        handler = super().get_route_handler()

        async def noted(request: Request) -> Response:
            request.state.notes = notes = ReadingNotes()
            response = await handler(request)
            response.headers.update(notes.headers)
            return response

        return noted


def document_scoring(errors: Mapping[int | str, dict[str, Any]], *names: str) -> dict[int | str, dict[str, Any]]:
    """Describe the replies of a route for OpenAPI: its errors, and the headers of its answer; all without ``names``."""
    headers = {name: {"description": TOLD[name], "schema": {"type": "integer", "minimum": 1}} for name in names or TOLD}
    return {200: {"description": "Successful Response", "headers": headers}, **errors}
