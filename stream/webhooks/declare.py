"""Declares the endpoints that triggers are sent to.

Comes in: tables of a settings file. Goes out: frozen `Endpoint`s, or a refusal that names the key, and
the secrets from where the declaration says that they are. `queue` and `bodies` are next.

A secret never stands in the settings: they name a variable or a file that holds it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stream.campaigns.declare import Period
from stream.secret_places import SecretPlace, read_secret

MOST_ENDPOINTS = 32
SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with is none
SHORTEST_SECRET, LONGEST_SECRET = 24, 64
"""Bytes of a secret for signatures, as Standard Webhooks asks for."""

_VISIBLE = re.compile(r"[!-~]+")
_NAME = re.compile(r"[a-z0-9_.-]+")
_FIT_FOR_HEADERS = re.compile(r"[ -~]+")


class Format(StrEnum):
    """What a receiver understands."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"
    SEGMENT = "segment"
    KLAVIYO = "klaviyo"
    DITTOFEED = "dittofeed"


SIGNED = (Format.STANDARD, Format.CLOUDEVENTS)
"""Formats whose secrets sign; the first secret of the others is shown to the receiver."""


class Endpoint(BaseModel):
    """One receiver of triggers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="for good: what waits for it hangs on it"
    )
    url: str = Field(description="https://; http:// only where `private` is true")
    format: Format = Field(default=Format.STANDARD, description="of the body")
    campaigns: tuple[str, ...] = Field(
        default=(), description="whose triggers it gets; none named: those of all campaigns"
    )
    secrets: tuple[SecretPlace, ...] = Field(
        default=(),
        max_length=4,
        description="where its secrets are, env:NAME or file:PATH, the newest first; all of them sign, "
        "so that one can take another's place",
    )
    per_second: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="attempts at the most, over all partitions; none: as they come",
    )
    at_once: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="attempts under way at the most, over all partitions; one each at the least",
    )
    timeout: Period = Field(default=20.0, le=300, description="an answer later than this is none")
    private: bool = Field(default=False, description="it may be at a private or loopback address")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            well = parts.scheme in {"http", "https"} and parts.port != 0
            well = well and _is_host(parts.hostname or "")
        except ValueError:
            well = False
        else:
            # A password in an address would be shown wherever the address is.
            well = well and parts.username is None and not parts.fragment
        if not well or _VISIBLE.fullmatch(url) is None:
            raise ValueError(
                "expected https://host/path in ASCII, without user, password, fragment and blanks"
            )
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> Endpoint:
        if urlsplit(self.url).scheme == "http" and not self.private:
            raise ValueError("url: http:// is read by whoever listens; it needs private = true")
        if not self.secrets and self.format is not Format.CLOUDEVENTS:
            raise ValueError(f"secrets: format {self.format.value!r} needs one")
        return self

    def wants(self, campaign: str) -> bool:
        """Whether it gets the triggers of a campaign."""
        return not self.campaigns or campaign in self.campaigns

    @property
    def where(self) -> str:
        """What tells this address from any other the endpoint had before."""
        return blake2b(self.url.encode(), digest_size=8, person=b"segstream endpnt").hexdigest()


def _is_host(name: str) -> bool:
    """Whether it is an IPv6 address, or a name that can be asked for: no label is empty or too long."""
    if ":" in name:
        return _is_ipv6(name)
    if _NAME.fullmatch(name) is None:
        return False
    try:
        return bool(name.rstrip(".").encode("idna"))
    except UnicodeError:
        return False


def _is_ipv6(name: str) -> bool:
    try:
        return not IPv6Address(name).scope_id
    except ValueError:
        return False


def see_endpoints(endpoints: Sequence[Endpoint], campaigns: Iterable[str]) -> None:
    """Whether endpoints name only campaigns that there are.

    Raises:
        ValueError: they do not; the message names the key.
    """
    if len(endpoints) > MOST_ENDPOINTS:
        raise ValueError(f"endpoints: {len(endpoints)} are more than {MOST_ENDPOINTS}")
    known = set(campaigns)
    if endpoints and not known:
        raise ValueError("endpoints: no campaigns are declared whose triggers they could get")
    seen: set[str] = set()
    for place, endpoint in enumerate(endpoints):
        key = f"endpoints.{place}"
        if endpoint.name in seen:
            raise ValueError(f"{key}.name: {endpoint.name!r} is used twice")
        seen.add(endpoint.name)
        for campaign in endpoint.campaigns:
            if campaign not in known:
                raise ValueError(f"{key}.campaigns: there is no campaign {campaign!r}")


def secrets_of(endpoint: Endpoint, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The secrets of an endpoint, which are masked from now on wherever they would be shown.

    Raises:
        ValueError: one is not there, or is none; the message names its place, and not the secret.
    """
    found = tuple(read_secret(place, environment) for place in endpoint.secrets)
    for place, secret in zip(endpoint.secrets, found, strict=True):
        if endpoint.format in SIGNED:
            _see_that_it_signs(endpoint.name, place, secret)
        elif _FIT_FOR_HEADERS.fullmatch(secret) is None:
            raise ValueError(
                f"endpoint {endpoint.name}: {place} has characters that no header can carry"
            )
    return found


def _see_that_it_signs(name: str, place: str, secret: str) -> None:
    try:
        length = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if not SHORTEST_SECRET <= length <= LONGEST_SECRET:
        raise ValueError(
            f"endpoint {name}: {place} is no secret for signatures; expected {SECRET_PREFIX} and "
            f"{SHORTEST_SECRET} to {LONGEST_SECRET} random bytes in base64"
        )
