"""The limits of a server: the field ``limits`` of :class:`tureen_serve.settings.Settings`."""

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from tureen_serve.family_settings import SettingsGroup
from tureen_serve.strict_json import JsonLimits


class ServerLimits(SettingsGroup):
    """How much work one server accepts.

    Attributes:
        body_bytes: the largest body of a request.
        body_values: the largest number of values in a body: numbers, texts, lists, objects, null, true and false.
        body_objects: the largest number of lists and objects among them.
        body_fields: the largest number of fields of one object.
        text_bytes: the longest text, in bytes of UTF-8. A conversation with its answer is one text.
        request_bytes: the bytes of all texts of a request as they are read: a prompt counts with each of its answers.
        headers: the largest number of headers of a request.
        header_bytes: the largest size of a request's line and headers together.
        body_seconds: the time in which a body must arrive. Files have ``longest_deadline_seconds``.
        idle_seconds: how long a connection may wait for a request, or for a caller who does not read the reply. It must
            be longer than clients and load balancers keep an idle connection.
        in_flight: the largest number of requests at once.
        bodies_mib: the MiB of the bodies of all requests together, those included that are still arriving.
        batch_tokens: the largest number of tokens in a batch, with padding.
        batch_rows: the largest number of texts in a batch.
        queue_tokens: the largest number of tokens that may wait for one backbone.
        kept_scores: how many scores of each backbone are cached for repeated requests; 0 caches none.
        prompt_mib: MiB of all models together for keys and values of prompts, which later answers to the same prompt
            reuse; 0 keeps none. It is used on a CPU. vLLM has its own cache.
        text_mib: MiB of all families together for keys and values of texts that are being written. It is used on a CPU.
        memory_gib: the GiB that the process may use. If the other limits allow more, kept prompts get less; without
            room for the rest, the server does not become ready. None for the sum of the other limits.
        deadline_seconds: the time that a request may take by default.
        longest_deadline_seconds: the longest time that a request may ask for.
        stuck_seconds: the longest time of one forward pass, of one load of a model on demand, and between two tokens of
            vLLM's texts. After it, or if a runtime is dead, the process answers what is in flight with 503 and ends.
        drain_seconds: after SIGTERM, the time in which new requests are still accepted.
        grace_seconds: after that, the time in which running requests may finish.
    """

    body_bytes: PositiveInt = 8 * 2**20
    body_values: PositiveInt = 2**19
    body_objects: PositiveInt = 2**16
    body_fields: PositiveInt = 4096
    text_bytes: PositiveInt = 2**20
    request_bytes: PositiveInt = 32 * 2**20
    headers: PositiveInt = 100
    header_bytes: PositiveInt = 2**14
    body_seconds: PositiveFloat = 30.0
    idle_seconds: PositiveFloat = 75.0
    in_flight: PositiveInt = 512
    bodies_mib: PositiveInt = 64
    batch_tokens: PositiveInt = 8192
    batch_rows: PositiveInt = 64
    queue_tokens: PositiveInt = 2**20
    kept_scores: Annotated[int, Field(ge=0)] = 2**16
    prompt_mib: Annotated[int, Field(ge=0)] = 512
    text_mib: PositiveInt = 768
    memory_gib: PositiveFloat | None = None
    deadline_seconds: PositiveFloat = 120.0
    longest_deadline_seconds: PositiveFloat = 600.0
    stuck_seconds: PositiveFloat = 600.0
    drain_seconds: Annotated[float, Field(ge=0)] = 0.0
    grace_seconds: PositiveInt = 60

    @property
    def json_limits(self) -> JsonLimits:
        """The size of a body's JSON."""
        return JsonLimits(self.text_bytes, self.body_values, self.body_objects, self.body_fields)
