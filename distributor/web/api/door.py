"""Who may call: a token with the scope that the call names."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from distributor.access import Access
from distributor.web.problems import Problem

BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token of `distributor tokens create`, with the scope that the call names.",
)
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


class Door:
    """Lets a call in whose token allows it; a dependency of every call, with its scope. Raises Problem."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def __call__(self, request: Request, needed: SecurityScopes, given: Given) -> None:
        token = self.access.find(given.credentials) if given else None
        if token is None:
            raise Problem("no-token", "no token came that is known and not revoked", headers=_asked())
        for scope in needed.scopes:
            if scope not in token.scopes:
                detail = f"the token {token.name!r} lacks the scope {scope}"
                raise Problem("not-allowed", detail, headers=_asked("insufficient_scope", scope))
        request.state.asker = f"API token {token.name}"


async def _asker(request: Request) -> str:
    asker: str = request.state.asker
    return asker


#: Who calls, for the log and for what is written down: the token's name, never the token.
Asker = Annotated[str, Depends(_asker)]


def _asked(error: str = "", scope: str = "") -> dict[str, str]:
    """RFC 6750 §3."""
    return {"WWW-Authenticate": f'Bearer error="{error}", scope="{scope}"' if error else "Bearer"}
