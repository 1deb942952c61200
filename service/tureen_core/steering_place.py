"""Change the message in which a steered prompt says what is wanted. Pure."""

from collections.abc import Callable

from tureen.errors import Unprocessable
from tureen.messages import join_content
from tureen_core.steering import Place
from tureen_core.turns import Messages, Turn

Change = Callable[[str], str]


def append_words(said: str, words: str) -> str:
    """Append words to a message's text, after one space. They stand alone if the message is blank."""
    return f"{said.rstrip()} {words}" if said.strip() else words


def change_message(messages: Messages, place: Place, change: Change) -> list[Turn]:
    """Change the text of the user's last message, or of the system's message, which is made if there is none.

    Raises:
        Unprocessable: there is no message of the user.
    """
    turns = [dict(each) for each in messages]
    if place == "system" and (not turns or turns[0]["role"] != "system"):
        turns.insert(0, {"role": "system", "content": ""})
    at = max((index for index, each in enumerate(turns) if each["role"] == place), default=None)
    if at is None:
        raise Unprocessable("no message of the user: what is wanted is written at the end of it", param="messages")
    turns[at]["content"] = change(join_content(turns[at]))
    return turns


def change_text(text: str, place: Place, change: Change, marker: str = "") -> str:
    """Change a bare prompt, without the ``marker`` of the answer that it may end with.

    Raises:
        Unprocessable: what is wanted stands in the system's message, which a bare prompt does not have.
    """
    if place == "system":
        raise Unprocessable(
            "this policy is steered in the system's message, which a bare prompt does not have; send messages to "
            "/v1/chat/completions",
            param="prompt",
        )
    said = text.removesuffix(marker)
    return change(said) + text[len(said) :]
