"""How the text of an answer parts into steps. Training, serving and the readers of files share the rule."""

STEP_BREAK = "\n\n"


def split_steps(text: str) -> list[str]:
    """The steps of an answer: what blank lines part it into."""
    return text.split(STEP_BREAK)
