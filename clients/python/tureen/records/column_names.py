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
    *("previous_messages", "previous_turns", "prior_messages", "past_messages", "context_messages"),
)
# columns that change the text; where no reader took one, the record is refused
TEXT_COLUMNS = (
    *SYSTEMS,
    *HISTORIES,
    *("context", "contexts", "input", "tools", "functions", "tool_definitions", "available_tools"),
    *("documents", "document", "docs", "retrieved_documents", "passage", "passages"),
    *("instructions", "preamble", "persona", "background", "custom_system_prompt"),
    *("chat_template_kwargs", "template_kwargs", "enable_thinking"),
    *("image", "images", "image_path", "image_url", "image_urls", "video", "videos", "audio", "audios"),
)
SIDES = {
    "chosen": (
        *("chosen_response", "chosen_answer", "chosen_output", "chosen_message", "chosen_completion"),
        *("preferred_output", "preferred_response", "preferred", "response_j", "better_response"),
    ),
    "rejected": (
        *("rejected_response", "rejected_answer", "rejected_output", "rejected_message", "rejected_completion"),
        *("non_preferred_output", "dispreferred_response", "dispreferred", "response_k", "worse_response"),
    ),
}
FOLDED = {
    *TEXT_COLUMNS,
    *(name for names in SIDES.values() for name in names),
    *("prompt", "chosen", "rejected", "instruction", "output", "question", "query", "user_input", "user_prompt"),
    *("problem", "messages", "conversations", "completion", "response", "label"),
}


def fold_names(given: Mapping[str, Any]) -> dict[str, str]:
    """Map names in another case, or with spaces, to the known names, unless the file has the known name too."""
    found: dict[str, str] = {}
    for name in given:
        folded = re.sub(r"[\s-]+", "_", name.strip().lower())
        if folded in FOLDED and folded not in given and folded not in found.values():
            found[name] = folded
    return found
