"""One answer and what people say of it: ratings by several attributes, or whether it is wanted."""

from tureen.records.columns import Columns
from tureen.records.draft import Draft, make_unlabelled_scores
from tureen.records.fields import Fields
from tureen.records.joining import join_sides
from tureen.records.openings import read_opening, read_turns
from tureen.records.ratings import read_ratings
from tureen.records.schema import BadRecord, Conversation

CONVERSATIONS = ("messages", "conversations")
WANTED = ("true", "1", "1.0", "yes", "desirable", "chosen", "good", "positive")
UNWANTED = ("false", "0", "0.0", "no", "undesirable", "rejected", "bad", "negative")
ANSWERS = ("completion", "response", "output")


def read_rated_messages(columns: Columns) -> Draft:
    """Read a conversation with ratings of its last turn: ``attributes`` or ``labels``, else all numeric columns."""
    *prompt, answer = read_opening(columns, "messages").turns or ({"role": "assistant", "content": ""},)
    return Draft(tuple(prompt), ((answer,),), make_unlabelled_scores(1), attributes=read_ratings(columns))


def read_rated_response(columns: Columns) -> Draft:
    """Read a prompt and a response with its ratings, as :func:`read_rated_messages`."""
    prompt, answer = _read_answer(columns, "response")
    return Draft(prompt, (answer,), make_unlabelled_scores(1), attributes=read_ratings(columns))


def read_unpaired(columns: Columns) -> Draft:
    """Read the unpaired form of TRL and LlamaFactory: one answer, wanted (1) or not (0)."""
    wanted = _read_wanted(columns["label"])
    if wanted is None:
        raise BadRecord("bad score", f"`label` must be true or false, is {str(columns['label'])[:20]!r}")
    name = next((each for each in CONVERSATIONS if each in columns), None)
    if name is None or any(each in columns for each in ANSWERS):
        prompt, answer = _read_answer(columns, next((each for each in ANSWERS if each in columns), ANSWERS[0]))
    else:
        *turns, last = read_opening(columns, name).turns or ({"role": "assistant", "content": ""},)
        prompt, answer = tuple(turns), (last,)
    return Draft(prompt, (answer,), (float(wanted),))


def is_unpaired(fields: Fields) -> bool:
    """Whether a label says that one answer, or a whole conversation, is wanted or not."""
    label = fields["label"]
    if any(isinstance(fields.get(name), str | list | dict) for name in ANSWERS):
        return _read_wanted(label) is not None
    spelled = isinstance(label, bool) or (isinstance(label, str) and _read_wanted(label) is not None)
    return spelled and any(isinstance(fields.get(name), list) for name in CONVERSATIONS)


def _read_wanted(label: object) -> bool | None:
    """Read a label in any spelling as true or false. Returns None if it is neither."""
    text = str(label).strip().lower() if isinstance(label, str | int | float) else ""
    return True if text in WANTED else False if text in UNWANTED else None


def _read_answer(columns: Columns, name: str) -> tuple[Conversation, Conversation]:
    opening = read_opening(columns)
    if name not in columns:
        raise BadRecord("missing field", f"`{name}` is not there or null")
    turns = read_turns(columns[name], name, user=False)
    if not opening.turns and len(turns) == 1:
        raise BadRecord("missing field", "no column holds the prompt: name it with --map COLUMN=prompt")
    prompt, answers = join_sides(opening.turns, opening.spelled, [columns.peek(name)], [turns])
    return prompt, answers[0]
