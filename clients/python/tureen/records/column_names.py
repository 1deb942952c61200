"""The names of columns in public files: in other cases and with spaces, and several names for one thing."""

import re
from collections.abc import Mapping
from typing import Any

SYSTEMS = (
    *("system", "system_prompt", "system_message", "system_instruction", "system_instructions", "sys_prompt"),
    *("developer", "developer_message", "developer_prompt"),
)
HISTORIES = (
    *("history", "chat_history", "conversation_history", "dialogue_history", "dialog_history", "message_history"),
    *("previous_messages", "previous_turns", "prior_messages", "prior_turns", "past_messages", "context_messages"),
    "messages_history",
)
# columns that change the text; where no reader took one, the record is refused
TEXT_COLUMNS = (
    *SYSTEMS,
    *HISTORIES,
    *("context", "contexts", "input", "tools", "functions", "tool_definitions", "available_tools"),
    *("documents", "document", "docs", "retrieved_documents", "passage", "passages"),
    *("instructions", "preamble", "persona", "background", "custom_system_prompt", "preprompt", "pre_prompt"),
    *("knowledge", "article", "few_shot", "few_shot_examples", "demonstrations", "prompt_prefix", "prompt_suffix"),
    *("chat_template_kwargs", "template_kwargs", "enable_thinking"),
    *("image", "images", "image_path", "image_url", "image_urls", "video", "videos", "audio", "audios"),
)
SIDES = {
    "chosen": (
        *("chosen_response", "chosen_answer", "chosen_output", "chosen_message", "chosen_completion"),
        *("preferred_output", "preferred_response", "preferred", "response_j", "better_response"),
        *("chosen_messages", "chosen_conversation", "chosen_conversations", "messages_chosen", "accepted_response"),
    ),
    "rejected": (
        *("rejected_response", "rejected_answer", "rejected_output", "rejected_message", "rejected_completion"),
        *("non_preferred_output", "dispreferred_response", "dispreferred", "response_k", "worse_response"),
        *("rejected_messages", "rejected_conversation", "rejected_conversations", "messages_rejected"),
        "rejected_response",
    ),
}
# ms-swift: the better answer stands where an answer alone does, and only the worse one has a name of its own
WORSE_BESIDE = {"rejected_response": ("response", "messages"), "rejected_messages": ("messages",)}
FOLDED = {
    *TEXT_COLUMNS,
    *(name for names in SIDES.values() for name in names),
    *("prompt", "chosen", "rejected", "instruction", "output", "question", "query", "user_input", "user_prompt"),
    *("problem", "messages", "conversations", "completion", "response", "label"),
}
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])")


def fold_names(given: Mapping[str, Any]) -> dict[str, str]:
    """Map names in another case, in camel case or with spaces to the known names, unless the file has these too."""
    found: dict[str, str] = {}
    for name in given:
        folded = re.sub(r"[\s-]+", "_", CAMEL.sub("_", name.strip()).lower())
        if folded in FOLDED and folded not in given and folded not in found.values():
            found[name] = folded
    return found


def find_sides(given: Mapping[str, Any]) -> tuple[str, str] | None:
    """Find the columns of the better and the worse answer, where they have other names than chosen and rejected."""
    if SIDES.keys() & given.keys():
        return None
    for better, worse in zip(*SIDES.values(), strict=True):
        if better in given and worse in given:
            return better, worse
    for worse, others in WORSE_BESIDE.items():
        for better in others:
            if worse in given and better in given:
                return better, worse
    return None
