"""How the text of an answer parts into steps. Training, serving and the readers of files share the rule."""

STEP_BREAK = "\n\n"


def split_steps(text: str) -> list[str]:
    """The steps of an answer: what blank lines part it into. Blank ones at its ends are none; a blank text is one."""
    steps = text.split(STEP_BREAK)
    told = [number for number, step in enumerate(steps) if step.strip()]
    return steps[told[0] : told[-1] + 1] if told else [text]
