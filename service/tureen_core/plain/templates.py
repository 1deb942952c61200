"""Chat templates for models whose tokenizer has none, by the names that ``--template`` takes."""

from pathlib import Path
from typing import Any

from tureen_core.plain.options import PlainError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HH = (
    "{% for message in messages %}{% if message['role'] == 'user' %}\n\nHuman: {{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}\n\nAssistant: {{ message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}\n\nAssistant: {% endif %}"
)
TEMPLATES = {"chatml": CHATML, "hh": HH}


def set_template(tokenizer: Any, chosen: str | None, default: str | None, folder: Path) -> None:
    """Give a tokenizer the template that the user chose, its own, or the form's.

    Args:
        chosen: a name of :data:`TEMPLATES` or a file; None for the tokenizer's own.
        default: the form's, for a tokenizer without one.

    Raises:
        PlainError: there is none, or the file cannot be read.
    """
    if chosen is None:
        if tokenizer.chat_template is None and default is None:
            raise PlainError(
                f"{folder.name}: the tokenizer has no chat template; give a Jinja file with --template FILE, or one of "
                f"--template {'|'.join(TEMPLATES)}"
            )
        if tokenizer.chat_template is None:
            tokenizer.chat_template = default
        return
    if chosen in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[chosen]
        return
    try:
        tokenizer.chat_template = Path(chosen).expanduser().read_text()
    except OSError as error:
        raise PlainError(
            f"template: {chosen!r} is neither a file nor one of {', '.join(TEMPLATES)} ({error.strerror})"
        ) from error
