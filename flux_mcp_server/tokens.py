"""Bearer tokens: static ones, known by their hashes from a file, and JWTs that an identity provider signs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio.to_thread
import jwt
from mcp.server.auth.provider import AccessToken, TokenVerifier

from flux.errors import FluxError
from flux_mcp_server.auth import SCOPES

log = logging.getLogger("flux.mcp")

PREFIX = "flux_"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Only those whose keys can be public: a token signed with one of these cannot be made by who can check it."""

LEEWAY = 30.0  # seconds by which clocks may differ


class TokenFileInvalid(FluxError):
    """The file of tokens cannot be read, for a reason its owner can mend."""


@dataclass(frozen=True, slots=True)
class Known:
    """A line of the file: who it is, what they may do, and the hash of their token."""

    name: str
    scopes: Sequence[str]
    digest: str


@dataclass
class StaticTokens(TokenVerifier):
    """The tokens of a file, which is read again when it changes: a line that is taken out is a token that is good no more."""

    path: Path
    _stamp: tuple[int, int] = (0, 0)
    _known: list[Known] = field(default_factory=list[Known])

    async def verify_token(self, token: str) -> AccessToken | None:
        given = digest_of(token)
        found = None
        for known in self.known():
            if hmac.compare_digest(known.digest, given):
                found = known
        if found is None:
            return None
        return AccessToken(token=token, client_id=found.name, subject=found.name, scopes=list(found.scopes))

    def known(self) -> list[Known]:
        """Raises TokenFileInvalid."""
        try:
            seen = self.path.stat()
            stamp = (seen.st_mtime_ns, seen.st_size)
            if stamp != self._stamp:
                self._known = _read(self.path)
                self._stamp = stamp
        except FileNotFoundError:
            self._known = []
        return self._known


def _read(path: Path) -> list[Known]:
    found: list[Known] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        parts = text.split()
        if len(parts) != 3 or not re.fullmatch(r"sha256:[0-9a-f]{64}", parts[2]):
            raise TokenFileInvalid(f"{path}, line {number}: should be a name, scopes, and sha256:... of the token.")
        scopes = parts[1].split(",")
        check_scopes(scopes, f"{path}, line {number}")
        found.append(Known(parts[0], scopes, parts[2]))
    return found


def check_scopes(scopes: Sequence[str], where: str) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise TokenFileInvalid(f"{where}: there is no scope {unknown[0]!r}; known: {', '.join(SCOPES)}.")


def digest_of(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"


def add_token(path: Path, name: str, scopes: Sequence[str]) -> str:
    """Add a line to the file, for its owner only, and return the token, which is written nowhere."""
    check_scopes(scopes, "--scopes")
    if re.search(r"[\s#]", name) or not name:
        raise TokenFileInvalid(f"{name!r}: a name is one word.")
    token = PREFIX + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(f"{name} {','.join(scopes)} {digest_of(token)}\n")
    return token


@dataclass
class SignedTokens(TokenVerifier):
    """JWTs of one issuer for one audience. Its keys are fetched from `jwks_url`, and again when a token names an unknown one."""

    issuer: str
    audience: str
    jwks_url: str

    def __post_init__(self) -> None:
        self._keys = jwt.PyJWKClient(self.jwks_url, cache_keys=True, timeout=10)

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            claims = await anyio.to_thread.run_sync(self._claims, token)
        except jwt.PyJWTError as exc:
            log.info("a token was refused: %s", exc)
            return None
        subject = str(claims["sub"])
        client = claims.get("client_id") or claims.get("azp") or subject
        return AccessToken(
            token=token,
            client_id=str(client),
            subject=subject,
            scopes=_scopes(claims),
            expires_at=int(claims["exp"]),
            resource=self.audience,
            claims=dict(claims),
        )

    def _claims(self, token: str) -> Mapping[str, Any]:
        key = self._keys.get_signing_key_from_jwt(token)
        return jwt.decode(
            token,
            key.key,
            algorithms=list(ALGORITHMS),
            audience=self.audience,
            issuer=self.issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "sub", "aud", "iss"]},
        )


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    given = claims.get("scope", claims.get("scp", ""))
    words = given.split() if isinstance(given, str) else cast("Collection[Any]", given)
    return [str(word) for word in words]


@dataclass(frozen=True)
class Either(TokenVerifier):
    """Good if any of these takes it."""

    verifiers: Sequence[TokenVerifier]

    async def verify_token(self, token: str) -> AccessToken | None:
        for verifier in self.verifiers:
            found = await verifier.verify_token(token)
            if found is not None:
                return found
        return None
