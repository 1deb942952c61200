"""Who may reach a server: the field ``access`` of :class:`tureen_serve.settings.Settings`."""

import re

from pydantic import field_validator

from tureen_serve.family_settings import SettingsGroup

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?|\*")


class AccessSettings(SettingsGroup):
    """What is open without a key, and to which web pages.

    Attributes:
        anonymous: serve everyone who can reach the server, without keys. Otherwise a host beyond this machine needs
            ``keys``. Administration stays closed.
        open_metrics: answer ``/metrics`` without a key.
        cors_origins: origins of web pages whose scripts may call this server, such as ``https://app.example.org``;
            ``*`` for all.
    """

    anonymous: bool = False
    open_metrics: bool = False
    cors_origins: list[str] = []

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for each in origins:
            if not ORIGIN.fullmatch(each):
                raise ValueError(f"{each!r} is not an origin; write it as https://app.example.org, without a path")
        return origins
