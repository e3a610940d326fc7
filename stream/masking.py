"""Keeps passwords and keys out of whatever is shown.

Comes in: settings as they are read, and texts about them. Goes out: the same with `MASK` in the place
of each secret. `shown` knows where secrets stand in a setting; `mask` finds those again that `learn`
was told of, wherever an error or a library quotes them, and every password in an address.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"

SHORTEST = 4
"""A shorter secret is masked where it stands, but not looked for in texts: it would be found in
every other word."""

_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|token|jaas|credential|[.]pem$|(^|[._])key([._]|$)", re.IGNORECASE
)
_GUARDED_NAME = re.compile(r"(^|[.])(sasl|ssl)[.]", re.IGNORECASE)
_PUBLIC_NAME = re.compile(
    r"""(^|[.])(
      sasl[.]( mechanisms? | username
             | kerberos[.]( service[.]name | principal | keytab )
             | oauthbearer[.]( method | client[.]id | scope | token[.]endpoint[.]url ) )
    | ssl[.]( (ca|certificate|key|keystore|crl)[.]location | endpoint[.]identification[.]algorithm
            | cipher[.]suites | curves[.]list | sigalgs[.]list | providers
            | ca[.]certificate[.]stores )
    | enable[.][a-z.]+
    )$""",
    re.IGNORECASE | re.VERBOSE,
)
"""Of librdkafka's properties for security, those with nothing to hide; a name mistyped is not one."""
_PUBLIC_PARAMETER = re.compile(
    r"^(db|protocol|client_name|max_connections|health_check_interval|\w*timeout|ssl_cert_reqs)$"
)
"""Of the parameters in an address."""
_ADDRESS = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]+""")

_known: set[str] = set()


def is_secret(name: str) -> bool:
    """Whether a setting or a property of that name is not to be shown."""
    if _PUBLIC_NAME.search(name):
        return False
    return bool(_GUARDED_NAME.search(name) or _SECRET_NAME.search(name))


def shown(name: str, value: Any) -> Any:
    """A setting's value as others may see it."""
    if isinstance(value, dict):
        return {key: shown(f"{name}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(name, inner) for inner in value]
    if value is None or value == "" or isinstance(value, bool):
        return value
    if is_secret(name):
        return MASK
    return mask(value) if isinstance(value, str) else value


def shown_address(address: str) -> str:
    """An address without what must not be seen of it.

    A password may hold characters that end it, for whoever reads the address by the letter of the
    standard. So everything up to the last ``@`` is taken for user and password.
    """
    scheme, user, password, rest = _parts(address)
    if password is not None:
        user = f"{user}:{MASK}@"
    elif user:
        user = f"{MASK}@"
    rest, question, query = rest.partition("?")
    rest, mark, _ = rest.partition("#")
    parameters = (one.partition("=") for one in query.split("&"))
    told = "&".join(
        name + equals + (value if _PUBLIC_PARAMETER.match(name) or not value else MASK)
        for name, equals, value in parameters
    )
    return f"{scheme}://{user}{rest}{mark}{MASK if mark else ''}{question}{told}"


def learn(name: str, value: Any) -> None:
    """Remember the secrets in a setting, so that `mask` finds them."""
    if isinstance(value, dict):
        for key, inner in value.items():
            learn(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            learn(name, inner)
    elif not isinstance(value, bool) and is_secret(name):
        _remember(str(value))
    elif isinstance(value, str) and "://" in value:
        _, _, password, rest = _parts(value)
        _remember(password or "")
        for parameter in rest.partition("?")[2].split("&"):
            key, _, inner = parameter.partition("=")
            if not _PUBLIC_PARAMETER.match(key):
                _remember(inner)


def mask(text: str) -> str:
    """A text without the secrets learned, and without passwords in addresses."""
    if _known:
        longest_first = sorted(_known, key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, longest_first)), MASK, text)
    if "://" in text:
        text = _ADDRESS.sub(lambda found: shown_address(found[0]), text)
    return text


def mask_facts(facts: Any) -> Any:
    """Plain data with `mask` on every text in it."""
    if isinstance(facts, str):
        return mask(facts)
    if isinstance(facts, dict):
        return {key: mask_facts(value) for key, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [mask_facts(value) for value in facts]
    return facts


def _parts(address: str) -> tuple[str, str, str | None, str]:
    """Scheme, user, password if there is one, and all behind these."""
    scheme, _, rest = address.partition("://")
    before, at, after = rest.rpartition("@")
    if not at:
        return scheme, "", None, rest
    user, colon, password = before.partition(":")
    return scheme, user, password if colon else None, after


def _remember(secret: str) -> None:
    """A secret, as it is and as others write it: decoded, encoded, between quotation marks."""
    for form in {secret, unquote(secret), unquote_plus(secret)}:
        if len(form) >= SHORTEST and form != MASK:
            quoted = {json.dumps(form)[1:-1], repr(form)[1:-1]}
            _known.update({form, quote(form, safe=""), quote_plus(form)} | quoted)
