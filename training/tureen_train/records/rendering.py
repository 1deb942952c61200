"""Records and the renderer: a record as a probe, and errors that name the record that cannot be rendered."""

from collections.abc import Iterator
from contextlib import contextmanager

from tureen.errors import Unprocessable
from tureen.records.schema import BadRecord, Conversation, Record
from tureen_core.manifest import Probe


@contextmanager
def locate_refusals(source: str) -> Iterator[None]:
    """Turn the renderer's errors into errors of the record that is rendered.

        with locate_refusals(record.source):
            texts = renderer.render_candidates(record.prompt, record.answers)

    Raises:
        BadRecord: the renderer raised :class:`Unprocessable`: a turn, a tool or an argument has no place in the text.
    """
    try:
        yield
    except Unprocessable as error:
        raise BadRecord("cannot be rendered", error.message, source, error.param or "") from error


def make_probe(record: Record, answer: Conversation) -> Probe:
    """Make a probe, without scores, of an answer after its prompt, with the record's tools."""
    return Probe(messages=[*record.prompt, *answer], **record.template_arguments)
