"""Who may reach a server: the field ``access`` of :class:`tureen_serve.settings.Settings`."""

import re

from pydantic import field_validator

from tureen_serve.family_settings import SettingsGroup

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?|\*")
HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\*")


class AccessSettings(SettingsGroup):
    """What is open without a key, and to which web pages.

    Attributes:
        anonymous: serve everyone who can reach the server, without keys. Otherwise a host beyond this machine needs
            ``keys``. Administration stays closed.
        open_metrics: answer ``/metrics`` without a key.
        cors_origins: origins of web pages whose scripts may call this server, such as ``https://app.example.org``;
            ``*`` for all.
        hosts: names by which the server may be called, beside its addresses and ``localhost``; ``*`` for all. Without
            any, a server without keys that is bound to this machine takes no others, so that web pages cannot reach it
            by DNS rebinding; other servers take all.
    """

    anonymous: bool = False
    open_metrics: bool = False
    cors_origins: list[str] = []
    hosts: list[str] = []

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for each in origins:
            if not ORIGIN.fullmatch(each):
                raise ValueError(f"{each!r} is not an origin; write it as https://app.example.org, without a path")
        return origins

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, hosts: list[str]) -> list[str]:
        for each in hosts:
            if not HOST.fullmatch(each):
                raise ValueError(f"{each!r} is not a host name; write it as tureen.example.org, without a port")
        return hosts
