"""The base of the parts of a manifest."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of the manifest's parts: unknown fields are an error, since they may change a meaning."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
