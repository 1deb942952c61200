"""Who calls: a key with its name, tenant, scopes, expiry and quota; or somebody without a key, where none is needed."""

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tureen.errors import Forbidden, Unauthorized
from tureen_serve.inference.demand import NO_TENANT
from tureen_serve.security.quotas import Quota
from tureen_serve.security.scopes import ALL_SCOPES, KeyScope

CURRENT: ContextVar["Caller | None"] = ContextVar("current_caller", default=None)


@dataclass(frozen=True, eq=False)
class Caller:
    """One key, without the key itself.

    Attributes:
        name: what logs call it.
        tenant: the team or customer that it belongs to.
        expires: when it ends; None for never.
        quota: what it may use in a minute; None for no bound.
    """

    name: str
    tenant: str = NO_TENANT
    scopes: frozenset[KeyScope] = ALL_SCOPES
    expires: datetime | None = None
    quota: Quota | None = None

    def check_expiry(self) -> None:
        """Check that the key has not ended.

        Raises:
            Unauthorized: it has.
        """
        if self.expires is not None and datetime.now(UTC) >= self.expires:
            message = f"the key {self.name!r} ended at {self.expires.isoformat()}; use a new one"
            raise Unauthorized(message, code="expired_api_key")

    def require_scope(self, scope: KeyScope) -> None:
        """Check that the key carries a scope.

        Raises:
            Forbidden: it does not; the message names the scope.
        """
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes))
            raise Forbidden(f"this needs the scope `{scope}`, and the key {self.name!r} has: {held}")


# without a file of keys: everything on this machine; for the network everything but the administration
LOCAL = Caller("local")
ANONYMOUS = Caller("anonymous", scopes=ALL_SCOPES - {KeyScope.ADMIN})


def note_caller(scope: MutableMapping[str, Any], caller: Caller) -> None:
    """Note who made a request, for the middleware around the guard."""
    scope["tureen.caller"] = caller


def find_caller_of(scope: Mapping[str, Any]) -> Caller | None:
    """Find who made a request; None if it had no known key."""
    found: Caller | None = scope.get("tureen.caller")
    return found


def require_scope(scope: KeyScope) -> None:
    """Check that the caller of this request carries a further scope.

    Raises:
        Forbidden: it does not.
    """
    caller = CURRENT.get()
    if caller is not None:
        caller.require_scope(scope)


def charge_tokens(tokens: int) -> None:
    """Take tokens that were computed off the quota of the request's caller. Lines of batches have no caller."""
    caller = CURRENT.get()
    if caller is not None and caller.quota is not None:
        caller.quota.charge_tokens(tokens)
