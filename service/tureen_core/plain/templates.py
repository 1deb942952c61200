"""Chat templates for models whose tokenizer has none, by the names that ``--template`` takes."""

from pathlib import Path
from typing import Any, Literal

from tureen_core.plain.options import PlainError
from tureen_core.special_tokens import TokenizerFrame

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HH = (  # text after a tag would lose its first line break
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '\\n\\nHuman: ' ~ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '\\n\\nAssistant: ' ~ message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant: ' }}{% endif %}"
)
ROLES = (
    "{% for message in messages %}{{ message['role'] ~ ': ' ~ message['content'] ~ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ANSWER = (
    "{% for message in messages %}{% if loop.last and message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% endif %}{% endfor %}"
)
# the tokenizer's own special tokens are written in the places of BEFORE, BETWEEN and AFTER
TEXT_PAIR = (
    "{% if messages | length > 2 or messages[0]['role'] != 'user' or messages[-1]['role'] not in ('user', 'assistant') "
    "or (messages | length == 2 and messages[1]['role'] != 'assistant') %}"
    "{{ raise_exception('text-pair reads one message of the user and its answer, and nothing before them; send these "
    "two, or serve the model with --template roles, or with a Jinja file') }}{% endif %}"
    "BEFORE{{ messages[0]['content'] }}"
    "{% if messages | length == 2 %}BETWEEN{{ messages[1]['content'] }}AFTER{% elif add_generation_prompt %}BETWEEN"
    "{% endif %}"
)
VERIFIER = "Is the answer correct (Yes/No)?"  # of GenRM (arXiv 2408.15240)
_ASK = (
    "{% set asked = namespace(first=[], text='') %}{% for message in messages %}"
    "{% if message['tool_calls'] or message['reasoning_content'] or message['role'] == 'tool' %}"
    "{{ raise_exception('a verifier reads the texts of questions and answers only') }}{% endif %}"
    "{% if message['role'] == 'system' %}{% set asked.first = [message] %}{% else %}"
    "{% set asked.text = asked.text + message['content'] + '\\n' %}{% endif %}{% endfor %}"
    "{% set messages = asked.first + [{'role': 'user', 'content': asked.text + '" + VERIFIER + "'}] %}"
    "{% set add_generation_prompt = true %}"
)
PAIR, ALONE = "text-pair", "answer"
TEMPLATES = {PAIR: TEXT_PAIR, ALONE: ANSWER, "roles": ROLES, "chatml": CHATML, "hh": HH}


def choose_frame(chosen: str | None, framed: bool, ends_itself: bool = False) -> Literal["none", "text", "pair"]:
    """Choose what the tokenizer itself puts around a text, see :class:`tureen_core.reading.Reading`.

    Args:
        chosen: the template that the user chose.
        framed: whether the form leaves special tokens to the tokenizer, whatever the template is.
        ends_itself: whether the form has its own rule for BOS and EOS.

    Raises:
        PlainError: the form has its own rule for BOS and EOS, and the template leaves them to the tokenizer.
    """
    if chosen in (PAIR, ALONE):
        if ends_itself:
            raise PlainError(f"template: models of this form end their texts by themselves; {chosen} is for others")
        return "pair" if chosen == PAIR else "text"
    return "text" if framed else "none"


def write_verifier_template(frame: str) -> str:
    """Write a template that asks a verifier: its only turn has question, answer and :data:`VERIFIER`, in lines.

    Args:
        frame: the chat template around this turn.
    """
    return _ASK + frame


def set_template(tokenizer: Any, chosen: str | None, default: str | None, folder: Path) -> None:
    """Give a tokenizer the template that the user chose, its own, or the form's.

    Args:
        chosen: a name of :data:`TEMPLATES` or a file; None for the tokenizer's own.
        default: the form's, for a tokenizer without one.

    Raises:
        PlainError: there is none, the file cannot be read, or the tokenizer does not separate two texts.
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
        tokenizer.chat_template = TEMPLATES[chosen] if chosen != PAIR else _write_pair_template(tokenizer, folder)
        return
    try:
        tokenizer.chat_template = Path(chosen).expanduser().read_text()
    except OSError as error:
        raise PlainError(
            f"template: {chosen!r} is neither a file nor one of {', '.join(TEMPLATES)} ({error.strerror})"
        ) from error


def _write_pair_template(tokenizer: Any, folder: Path) -> str:
    try:
        texts = TokenizerFrame(tokenizer, pair=True).texts
    except ValueError as error:
        raise PlainError(f"{folder.name}: {error}; --template {PAIR} cannot be used, choose another one") from error
    template = TEXT_PAIR
    for place, text in zip(("BEFORE", "BETWEEN", "AFTER"), texts, strict=True):
        template = template.replace(place, text)
    return template
