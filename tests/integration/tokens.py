"""Gives tokens that nobody has signed, which a broker of these tests takes: a `broker.oauth_provider`."""

from __future__ import annotations

import base64
import json
import time


def token(config: str) -> tuple[str, float]:
    """A token of whoever the configuration names, and when it expires."""
    if config == "nobody":
        raise PermissionError("nobody may have a token")
    now = time.time()
    expires = now + 600
    claims = {"sub": config, "iat": now, "exp": expires}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "none"}, claims)
    ]
    return f"{'.'.join(parts)}.", expires
