"""Preference sentences in prompts: appending them, and finding them again. Pure.

RLPHF (arXiv 2310.11564) states a preference by sentences at the end of the prompt, parted by a space, and finds them by
exact match. Here white space does not count, and a prompt without any sentence is never taken for one with some.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tureen.errors import Unprocessable
from tureen.messages import join_content
from tureen.records.schema import BadRecord, Conversation, Record
from tureen_core.steering_place import append_words, change_message
from tureen_train.config import PromptPreferences


def add_preferences(records: Sequence[Record], preferences: PromptPreferences) -> list[Record]:
    """Append sentences to the prompts of records; see :class:`PromptPreferences`. The answers stay as they are.

    ``meta["preferences"]`` names the poles that were added. Records without a prompt stay as they are.

    Raises:
        BadRecord: a prompt has no turn of the user.
    """
    choices, draw = preferences.choices, random.Random(preferences.seed)
    if not choices:
        return list(records)
    made = []
    for record in records:
        taken = choices if preferences.take == "all" else [draw.choice(choices)]
        made += [_add(record, poles, preferences.by_pole) for poles in taken] if record.prompt else [record]
    return made


def _add(record: Record, poles: Sequence[str], sentences: Mapping[str, str]) -> Record:
    try:
        prompt = append_sentences(record.prompt, [sentences[pole] for pole in poles])
    except BadRecord as error:
        raise error.at(record.source) from error
    return replace(record, prompt=prompt, meta={**record.meta, "preferences": list(poles)})


def append_sentences(prompt: Conversation, sentences: Sequence[str]) -> Conversation:
    """Append sentences to the user's last turn, each after a space.

        append_sentences(({"role": "user", "content": "Explain tides."},), ["Be brief."])
        # ({"role": "user", "content": "Explain tides. Be brief."},)

    Raises:
        BadRecord: the prompt has no turn of the user.
    """
    words = " ".join(sentences)
    try:
        return tuple(change_message(prompt, "user", lambda said: append_words(said, words)))
    except Unprocessable as error:
        raise BadRecord("no turn of the user", "a preference is appended to the user's last turn") from error


class SentenceFinder:
    """Finds preference sentences in prompts, and takes all but one away.

        finder = SentenceFinder({"P2A": "Be brief.", "P3A": "Be kind."})
        finder.find_poles(prompt)  # ["P2A", "P3A"]
        finder.keep_one(prompt, "P3A")

    Args:
        sentences: the sentence of each pole. Where one sentence contains another, the longer one is found.
    """

    def __init__(self, sentences: Mapping[str, str]) -> None:
        longest_first = sorted(sentences, key=lambda pole: -len(sentences[pole]))
        self._poles = {f"pole{at}": pole for at, pole in enumerate(longest_first)}
        parts = [f"(?P<{group}>{_match_text(sentences[pole])})" for group, pole in self._poles.items()]
        self._any = re.compile(rf"\s*(?<!\w)(?:{'|'.join(parts)})(?!\w)")

    def find_poles(self, prompt: Conversation) -> list[str]:
        """Return the poles whose sentences stand in the user's turns, each once, in the order of the prompt."""
        found = [self._name(match) for turn in prompt if turn["role"] == "user" for match in self._match(turn)]
        return list(dict.fromkeys(found))

    def keep_one(self, prompt: Conversation, pole: str) -> Conversation:
        """Return the prompt with only the sentences of one pole; all others are taken out of the user's turns."""
        return tuple(
            {**turn, "content": self._any.sub(lambda match: self._keep(match, pole), join_content(turn)).lstrip()}
            if turn["role"] == "user" and self._any.search(join_content(turn))
            else turn
            for turn in prompt
        )

    def _match(self, turn: Mapping[str, object]) -> list[re.Match[str]]:
        return list(self._any.finditer(join_content(turn)))

    def _name(self, match: re.Match[str]) -> str:
        return self._poles[str(match.lastgroup)]

    def _keep(self, match: re.Match[str], pole: str) -> str:
        return match[0] if self._name(match) == pole else ""


def _match_text(sentence: str) -> str:
    """A pattern of a sentence in which white space of any length matches white space."""
    return r"\s+".join(map(re.escape, sentence.split()))
