"""The request bodies of vLLM's scoring routes: fields, defaults and bounds of 0.32.

``user``, ``cache_salt``, ``padding`` and the fields for images are ignored, because they change no reward of a text.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tureen.errors import Unprocessable
from tureen.wire import MAX_MESSAGES, MAX_TEXTS, Many, Message, TemplateRequest, Text
from tureen_core.reading import Cut
from tureen_serve.api.reward_items import read_inputs
from tureen_serve.dialects.dialect_context import DialectBody
from tureen_serve.dialects.inputs import Input, Texts, is_single, list_inputs
from tureen_serve.dialects.query_documents import NO_INSTRUCTION
from tureen_serve.inference.engine import FinishedText, Group, Priority

CUT_IT = "or send `truncate_prompt_tokens: -1` to have it cut"
REMOVED = {"score": "use `classify`", "encode": "use `token_embed` or `token_classify`"}
PAIRS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class VllmMessage(Message):
    """A message. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class VllmTemplateBody(DialectBody, TemplateRequest):
    """The fields that concern the chat template. Another template is refused: a reward needs that of its training."""

    model_config = ConfigDict(extra="ignore")

    chat_template: Any = None
    continue_final_message: Any = False

    @field_validator("chat_template", "continue_final_message")
    @classmethod
    def _refuse_template(cls, value: Any) -> Any:
        if value:
            raise ValueError("must be left out: a reward is always read with the template that it was trained with")
        return value


class VllmBody(VllmTemplateBody):
    """The fields that all scoring routes share.

    Attributes:
        use_activation: apply the sigmoid or softmax; true by default. Older clients name it ``activation``.
        priority: below 0 goes before other requests, above 0 after them.
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
    def _refuse_normalize(cls, _: Any) -> Any:
        raise ValueError("was removed by vLLM; use `use_activation`")

    @property
    def activated(self) -> bool:
        """Whether the sigmoid or softmax is applied to the raw rewards."""
        return (self.activation if self.use_activation is None else self.use_activation) is not False

    @property
    def urgency(self) -> Priority:
        """The priority in our words."""
        return "default" if self.priority == 0 else "interactive" if self.priority < 0 else "batch"

    def cut(self, longest: int) -> Cut | None:
        """Return how to cut a text that is too long, or None to refuse it.

        Args:
            longest: the number of tokens that all selected rewards can read.

        Raises:
            Unprocessable: ``truncate_prompt_tokens`` is 0 or more than ``longest``.
        """
        length = self.truncate_prompt_tokens
        if length is None:
            return None
        if length == 0 or length > longest:
            name = "truncate_prompt_tokens"
            raise Unprocessable(f"{name} must be -1, or 1 to {longest}: the model reads {longest} tokens", param=name)
        return Cut(None if length < 0 else length, self.truncation_side)


class VllmTextsBody(VllmBody):
    """The body of ``/classify``: finished texts or token ids in ``input``, or one conversation in ``messages``.

    Attributes:
        add_special_tokens: give a finished text the BOS and EOS tokens that the reward's reading names, each once; true
            by default. A conversation always has them once.
    """

    input: Input | None = None
    messages: Annotated[list[VllmMessage], Many(MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = False
    task: str | None = None

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str | None) -> str | None:
        if task in REMOVED:
            raise ValueError(f"the task `{task}` was removed; {REMOVED[task]}")
        if task not in (None, "classify"):
            raise ValueError(f"no loaded reward has the task `{task}`; send `classify`, which returns rewards")
        return task

    @field_validator("add_generation_prompt")
    @classmethod
    def _refuse_opened_answer(cls, value: bool) -> bool:
        if value:
            raise ValueError("must be false: the last answer is scored, and no new answer is begun after it")
        return value

    @model_validator(mode="after")
    def _check_input(self) -> "VllmTextsBody":
        if (self.input is None) == (self.messages is None):
            raise ValueError("send either `input` or `messages`")
        if self.input == []:
            raise ValueError("`input` needs at least one text")
        return self

    def groups(self, longest: int) -> list[Group | FinishedText]:
        """Return the texts as the engine reads them."""
        cut = self.cut(longest)
        if self.messages is not None:
            return [Group([[turn.plain() for turn in self.messages]], cut=cut, beside=read_inputs(self))]
        return [FinishedText(each, self.add_special_tokens is not False, cut) for each in list_inputs(self.input or "")]

    def at(self, index: int) -> str:
        """Return the field of a text."""
        if self.messages is not None:
            return "messages"
        return "input" if is_single(self.input) else f"input[{index}]"


class VllmPoolingBody(VllmTextsBody):
    """The body of ``/pooling``: that of ``/classify``, and the encoding of the numbers."""

    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = "float"
    embed_dtype: Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"] = "float32"
    endianness: Literal["native", "big", "little"] = "native"
    dimensions: None = None


class VllmPairsBody(VllmBody):
    """The fields that ``/score`` and ``/rerank`` share. The bounds are in tokens; 0 means no bound."""

    max_tokens_per_query: Annotated[int, Field(ge=0)] = 0
    max_tokens_per_doc: Annotated[int, Field(ge=0)] = 0
    instruction: Text | None = None

    @field_validator("chat_template_kwargs", "tools")
    @classmethod
    def _refuse_inputs(cls, value: Any) -> Any:
        if value:
            raise ValueError("must be left out: a query and a document are texts; send `messages` to /classify")
        return value

    @field_validator("instruction")
    @classmethod
    def _refuse_instruction(cls, value: str | None) -> str | None:
        if value:
            raise ValueError(NO_INSTRUCTION)
        return value

    def check_bounds(self, longest: int) -> None:
        """Check that the bounds are less than ``longest``, the number of tokens that the model reads.

        Raises:
            Unprocessable: a bound is too large.
        """
        for name in ("max_tokens_per_query", "max_tokens_per_doc"):
            if getattr(self, name) >= longest:
                message = f"{name} must be less than {longest}, the number of tokens that the model reads"
                raise Unprocessable(message, param=name)


class VllmScoreBody(VllmPairsBody):
    """The body of ``/score``: queries and documents, under any pair of names in ``PAIRS``; 1 to 1, 1 to N or N to N."""

    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> "VllmScoreBody":
        if self.names is None:
            raise ValueError("send " + " or ".join(f"`{first}` with `{second}`" for first, second in PAIRS))
        return self

    @property
    def names(self) -> tuple[str, str] | None:
        """The names of the two fields that the body has."""
        return next((pair for pair in PAIRS if all(getattr(self, name) is not None for name in pair)), None)

    def sides(self) -> tuple[list[str], list[str]]:
        """Return the queries and the documents."""
        first, second = self.names or PAIRS[0]
        return list_inputs(getattr(self, first)), list_inputs(getattr(self, second))

    def at(self, index: int) -> str:
        """Return the field of a document."""
        name = (self.names or PAIRS[0])[1]
        return name if isinstance(getattr(self, name), str) else f"{name}[{index}]"


def _open_documents(given: Any) -> Any:
    """Replace documents that are objects, as Cohere and Jina have them, by their ``text``."""
    if not isinstance(given, list) or len(given) > MAX_TEXTS:
        return given
    return [each["text"] if isinstance(each, dict) and "text" in each else each for each in given]


class VllmRerankBody(VllmPairsBody):
    """The body of ``/rerank``. The reply has the ``top_n`` best documents; 0 returns all of them."""

    query: Text
    documents: Annotated[Texts, BeforeValidator(_open_documents)]
    top_n: Annotated[int, Field(ge=0)] = 0

    def sides(self) -> tuple[list[str], list[str]]:
        """Return the query, as a list, and the documents."""
        return [self.query], list_inputs(self.documents)

    def at(self, index: int) -> str:
        """Return the field of a document."""
        return "documents" if isinstance(self.documents, str) else f"documents[{index}]"
