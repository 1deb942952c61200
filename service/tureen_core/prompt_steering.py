"""Steering by words: which sentences preferences choose, and where they stand in a prompt. Pure."""

from collections.abc import Mapping, Sequence

from tureen.errors import Unprocessable
from tureen_core.preference import DECIMALS
from tureen_core.steering import PromptSteering
from tureen_core.steering_place import change_message, change_text
from tureen_core.turns import Messages, Turn


def choose_sentences(weights: Mapping[str, float], steering: PromptSteering, field: str = "preferences") -> list[str]:
    """Choose the sentences whose weight reaches the threshold, and order them by weight, the largest first.

    Example::

        choose_sentences({"brief": 0.7, "kind": 0.3}, steering)  # ["Be brief.", "Be kind."]

    Args:
        weights: normalised; an objective that is left out has weight 0, which chooses nothing.
        field: the path of the weights in the request, for errors.

    Raises:
        Unprocessable: no weight reaches the threshold, so that nothing would be said.
    """
    least = round(steering.threshold, DECIMALS)
    known = [(weights.get(each.objective, 0.0), each.text) for each in steering.sentences]
    chosen = [(weight, text) for weight, text in known if weight > 0 and weight >= least]
    if not chosen:
        message = f"no weight reaches {steering.threshold:g}, so no sentence would be said"
        raise Unprocessable(f"{message}; give fewer objectives, or one of them more weight", param=field)
    return [text for _, text in sorted(chosen, key=lambda each: -each[0])]


def say_in_messages(messages: Messages, sentences: Sequence[str], steering: PromptSteering) -> list[Turn]:
    """Write sentences into a message as the template says. Without sentences the messages stay as they are.

    Example::

        say_in_messages([{"role": "user", "content": "Explain tides."}], ["Be brief."], steering)
        # [{"role": "user", "content": "Explain tides. Be brief."}]

    Raises:
        Unprocessable: there is no message of the user.
    """
    if not sentences:
        return [dict(each) for each in messages]
    return change_message(messages, steering.place, lambda said: _fill(said.rstrip(), sentences, steering))


def say_in_text(text: str, sentences: Sequence[str], steering: PromptSteering, marker: str = "") -> str:
    """Write sentences into a bare prompt, before the ``marker`` of the answer if the prompt ends with it.

    Raises:
        Unprocessable: they stand in the system's message, which a bare prompt does not have.
    """
    if not sentences:
        return text
    return change_text(text, steering.place, lambda said: _fill(said, sentences, steering), marker)


def _fill(said: str, sentences: Sequence[str], steering: PromptSteering) -> str:
    """Fill the template in one pass, so that ``{sentences}`` in a message stays the message's."""
    before, _, after = steering.template.partition("{message}")
    words = steering.joiner.join(sentences)
    filled = before.replace("{sentences}", words) + said + after.replace("{sentences}", words)
    return filled if said.strip() else filled.strip()
