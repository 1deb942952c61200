"""Find the tokenizer that a request means: that of a reward, or of a policy."""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tureen.errors import NotFound, Unprocessable
from tureen_core.chat_template import TemplateInputs
from tureen_core.template import Renderer
from tureen_core.turns import Messages
from tureen_serve.dialects.dialect_context import DialectContext
from tureen_serve.dialects.model_names import DEFAULT, FIELD

_DIGESTS: WeakKeyDictionary[Renderer, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class TokenReader:
    """Turns texts into the ids that a model reads.

    Attributes:
        max_length: the largest number of tokens that the model reads.
        writes: whether the model is a policy, whose texts stay open: no EOS follows them.
    """

    renderer: Renderer
    max_length: int
    writes: bool

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.renderer.tokenizer

    def read_text(self, text: str, specials: bool) -> list[int]:
        """Return the ids of a text."""
        tokenize = self.renderer.tokenize_plain_prompt if self.writes else self.renderer.tokenize_text
        return tokenize(text, specials)

    def read_messages(self, messages: Messages, opens: bool, inputs: TemplateInputs) -> list[int]:
        """Return the ids of a conversation, with the opening of an answer after it if ``opens``."""
        tokenize = self.renderer.tokenize_prompt if opens else self.renderer.tokenize_conversation
        return tokenize(messages, inputs)


async def find_token_reader(context: DialectContext, model: str | None) -> TokenReader:
    """Find the tokenizer of a reward, of the first of several rewards, or of a policy.

    A missing model means the alias ``default`` or the only reward, else the first policy. But where rewards and
    policies have different tokenizers, a model must be named.

    Raises:
        NotFound: no model has this name.
        Unprocessable: the model is missing and the tokenizers differ.
    """
    asked = model or context.model
    families = context.engine.families
    if asked and asked not in context.engine.scoring:
        family = families.get(asked.partition(":")[0])
    else:
        family = None if asked else next(iter(families.values()), None)
    if family is not None and not asked and DEFAULT not in context.server.aliases:
        renderers = [each.renderer for each in context.engine.scoring.values()]
        renderers += [each.renderer for each in families.values() if each.renderer is not None]
        await asyncio.to_thread(_check_same, renderers, [*context.engine.scoring, *families])
    if family is None or not asked:
        try:
            reward = context.list_rewards(await context.select(asked))[0]
        except NotFound:
            if family is None:
                raise
        else:
            return TokenReader(reward.renderer, reward.renderer.reading.max_length, writes=False)
    if family.renderer is None:
        message = f"the upstream of {family.name} has its own tokenizer; ask it, or name another model"
        raise Unprocessable(message, param=FIELD)
    return TokenReader(family.renderer, family.context, writes=True)


def _check_same(renderers: Iterable[Renderer], names: Iterable[str]) -> None:
    if len({_digest(each) for each in renderers}) > 1:
        message = "the loaded models have different tokenizers; send one of these as `model` or as ?model="
        raise Unprocessable(f"{message}: {', '.join(names)}", param=FIELD)


def _digest(renderer: Renderer) -> str:
    """Hash a tokenizer, once."""
    if renderer not in _DIGESTS:
        _DIGESTS[renderer] = hashlib.sha256(renderer.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    return _DIGESTS[renderer]


def describe_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """Describe a tokenizer as its ``tokenizer_config.json`` does, without paths of this machine."""
    told = {name: _plain(value) for name, value in tokenizer.init_kwargs.items() if not _is_path(name)}
    specials = {f"{name}_token": getattr(tokenizer, f"{name}_token", None) for name in ("bos", "eos", "pad", "unk")}
    template = {"chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}
    return {**told, **specials, **template, "tokenizer_class": type(tokenizer).__name__}


def _is_path(name: str) -> bool:
    return name.endswith("_file") or name in ("name_or_path", "special_tokens_map_file", "tokenizer_object", "backend")


def _plain(value: Any) -> Any:
    """A JSON value; a token is its text."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value if not isinstance(value, float) or abs(value) < float("inf") else None
    return str(value)
