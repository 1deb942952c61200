"""What vLLM's scoring routes are sent (fields, defaults and bounds of 0.32), and what it means here.

Left unread are ``user``, ``cache_salt``, ``padding`` and what concerns images: they change no score of a text.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tureen.errors import Unprocessable
from tureen.wire import Message, Text
from tureen_core.template import Cut
from tureen_serve.dialects.dialect_context import DialectBody
from tureen_serve.dialects.inputs import Input, Texts, is_single, list_inputs
from tureen_serve.inference.engine import FinishedText, Group, Priority

CUT_IT = "or send `truncate_prompt_tokens: -1` to have it cut"
REMOVED = {"score": "use `classify`", "encode": "use `token_embed` or `token_classify`"}
PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class VllmMessage(Message):
    """A message; what else stands in it is not read."""

    model_config = ConfigDict(extra="ignore")


class VllmTemplateBody(DialectBody):
    """What other callers may change of a template. A reward is read through the one that it was trained with."""

    chat_template: Any = None
    chat_template_kwargs: Any = None
    continue_final_message: Any = False

    @field_validator("chat_template", "chat_template_kwargs", "continue_final_message")
    @classmethod
    def _its_own(cls, value: Any) -> Any:
        if value:
            raise ValueError("must be left out: a reward is read through the template that it was trained with")
        return value


class VllmBody(VllmTemplateBody):
    """What all scoring routes share.

    ``use_activation`` is on unless it is false; older clients call it ``activation``. A ``priority`` below zero goes
    before others, one above after them.
    """

    model: str | None = None
    request_id: str | None = None
    priority: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    padding: Literal["max_length", "do_not_pad"] | None = None
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    use_activation: bool | None = None
    activation: bool | None = None
    normalize: Any = None

    @field_validator("normalize", mode="before")
    @classmethod
    def _gone(cls, _: Any) -> Any:
        raise ValueError("was removed; use `use_activation`")

    @property
    def activated(self) -> bool:
        """Whether probabilities are asked for, and not raw rewards."""
        return (self.activation if self.use_activation is None else self.use_activation) is not False

    @property
    def urgency(self) -> Priority:
        """The band that the request waits in."""
        return "default" if self.priority == 0 else "interactive" if self.priority < 0 else "batch"

    def cut(self, longest: int) -> Cut | None:
        """What to do with a text that is too long; None refuses it.

        Args:
            longest: tokens that every reward asked reads.

        Raises:
            Unprocessable: it would be cut to nothing, or to more.
        """
        length = self.truncate_prompt_tokens
        if length is None:
            return None
        if length == 0 or length > longest:
            name = "truncate_prompt_tokens"
            raise Unprocessable(f"{name} must be -1, or 1 to {longest}, which is what the model reads", param=name)
        return Cut(None if length < 0 else length, self.truncation_side)


class VllmTextsBody(VllmBody):
    """``/classify``: finished texts or their ids in ``input``, or one conversation in ``messages``.

    With ``add_special_tokens`` (on) a finished text begins with BOS and ends with EOS as the reward's reading says,
    each once. A conversation has them once however that is set.
    """

    input: Input | None = None
    messages: list[VllmMessage] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = False
    task: str | None = None

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str | None) -> str | None:
        if task in REMOVED:
            raise ValueError(f"the task `{task}` was removed; {REMOVED[task]}")
        if task not in (None, "classify"):
            raise ValueError(
                f"no loaded reward answers the task `{task}`: each gives one number for a text, `classify`"
            )
        return task

    @field_validator("add_generation_prompt")
    @classmethod
    def _answered(cls, value: bool) -> bool:
        if value:
            raise ValueError("must be false: what is scored is the last answer, so none is opened after it")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "VllmTextsBody":
        if (self.input is None) == (self.messages is None):
            raise ValueError("send either `input` or `messages`")
        if self.input == []:
            raise ValueError("`input` needs at least one text")
        return self

    def groups(self, longest: int) -> list[Group | FinishedText]:
        """The texts, as the engine reads them."""
        cut = self.cut(longest)
        if self.messages is not None:
            return [Group([[turn.plain() for turn in self.messages]], cut=cut)]
        return [FinishedText(each, self.add_special_tokens is not False, cut) for each in list_inputs(self.input or "")]

    def at(self, index: int) -> str:
        """The field of a text."""
        if self.messages is not None:
            return "messages"
        return "input" if is_single(self.input) else f"input[{index}]"


class VllmPoolingBody(VllmTextsBody):
    """``/pooling``: the same, and how the numbers are written."""

    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"
    embed_dtype: Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"] = "float32"
    endianness: Literal["native", "big", "little"] = "native"
    dimensions: None = None


class VllmPairsBody(VllmBody):
    """What ``/score`` and ``/rerank`` share: bounds of each text, in tokens, 0 for none."""

    max_tokens_per_query: Annotated[int, Field(ge=0)] = 0
    max_tokens_per_doc: Annotated[int, Field(ge=0)] = 0
    instruction: Text | None = None

    @field_validator("instruction")
    @classmethod
    def _in_the_query(cls, value: str | None) -> str | None:
        if value:
            raise ValueError("no template here has a place for it; write it into the query")
        return value

    def check_bounds(self, longest: int) -> None:
        """Refuse bounds beyond what the model reads.

        Raises:
            Unprocessable: one is.
        """
        for name in ("max_tokens_per_query", "max_tokens_per_doc"):
            if getattr(self, name) >= longest:
                raise Unprocessable(f"{name} must be less than {longest}, which is what the model reads", param=name)


class VllmScoreBody(VllmPairsBody):
    """``/score``: a query and a document, by any of the four pairs of names; 1 to 1, 1 to N or N to N."""

    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None

    @model_validator(mode="after")
    def _a_pair(self) -> "VllmScoreBody":
        if self.names is None:
            raise ValueError("send " + " or ".join(f"`{first}` with `{second}`" for first, second in PAIRS))
        return self

    @property
    def names(self) -> tuple[str, str] | None:
        """The pair that is given."""
        return next((pair for pair in PAIRS if all(getattr(self, name) is not None for name in pair)), None)

    def sides(self) -> tuple[list[str], list[str]]:
        """Queries and documents."""
        first, second = self.names or PAIRS[0]
        return list_inputs(getattr(self, first)), list_inputs(getattr(self, second))

    def at(self, index: int) -> str:
        """The field of a document."""
        name = (self.names or PAIRS[0])[1]
        return name if isinstance(getattr(self, name), str) else f"{name}[{index}]"


class VllmRerankBody(VllmPairsBody):
    """``/rerank``: the ``top_n`` best documents, 0 for all."""

    query: Text
    documents: Texts
    top_n: Annotated[int, Field(ge=0)] = 0

    def sides(self) -> tuple[list[str], list[str]]:
        """Queries and documents."""
        return [self.query], list_inputs(self.documents)

    def at(self, index: int) -> str:
        """The field of a document."""
        return "documents" if isinstance(self.documents, str) else f"documents[{index}]"
