"""The tokenizer of a plain model, and whether it belongs to the model's weights."""

from pathlib import Path
from typing import Any

from tureen_core.own_files import TOKENIZER_CONFIG, find_foreign_file
from tureen_core.plain.checkpoint import Checkpoint
from tureen_core.plain.options import PlainError, PlainOptions
from tureen_core.plain.templates import set_template

SPARE_ROWS = 1024  # embeddings are padded to a multiple of a power of two, for speed


def load_plain_tokenizer(checkpoint: Checkpoint, options: PlainOptions) -> Any:
    """Load the tokenizer of the folder, or of the folder that the user named.

    Raises:
        PlainError: there is none, or it does not fit the embeddings.
    """
    from transformers import AutoTokenizer
    from transformers.utils.hub import cached_file

    folder: str | Path = options.tokenizer or checkpoint.folder
    if checkpoint.base is not None and options.tokenizer is None and not list(checkpoint.folder.glob("tokenizer*")):
        folder = checkpoint.base
    named = cached_file(
        str(folder), TOKENIZER_CONFIG, local_files_only=True, _raise_exceptions_for_missing_entries=False
    )
    if named and (foreign := find_foreign_file(Path(named).parent)):
        raise PlainError(f"{folder}: {foreign}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PlainError(
            f"{checkpoint.folder.name}: the tokenizer cannot be opened ({reason}); name its folder with --tokenizer"
        ) from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # transformers makes an empty one without its files
        raise PlainError(
            f"{checkpoint.folder.name}: there is no tokenizer in {folder}; name its folder with --tokenizer"
        )
    _check_size(checkpoint, tokenizer, asked=options.tokenizer is not None)
    return tokenizer


def _check_size(checkpoint: Checkpoint, tokenizer: Any, asked: bool) -> None:
    rows, tokens = checkpoint.text_config.get("vocab_size"), len(tokenizer)
    if not isinstance(rows, int):
        return
    if tokens > rows:
        raise PlainError(
            f"{checkpoint.folder.name}: its tokenizer has {tokens} tokens and the model embeds {rows}: it belongs to "
            "another model; name the right folder with --tokenizer"
        )
    if rows - tokens > max(SPARE_ROWS, rows // 100) and not asked:
        raise PlainError(
            f"{checkpoint.folder.name}: its tokenizer has {tokens} tokens and the model embeds {rows}: it may belong "
            "to another model; name its folder with --tokenizer, also if it is this one"
        )


def prepare_tokenizer(tokenizer: Any, checkpoint: Checkpoint, options: PlainOptions, template: str | None) -> None:
    """Set the chat template, and what transformers would clean from decoded texts.

    Raises:
        PlainError: there is no chat template, or the tokenizer cannot write it.
    """
    set_template(tokenizer, options.template, template, checkpoint.folder)
    tokenizer.clean_up_tokenization_spaces = False
