"""Reads secrets from where settings say that they are: a variable, or a file.

Comes in: a place, ``env:NAME`` or ``file:PATH``. Goes out: the secret, which is masked from now on wherever it
would be shown; or a refusal that names the place. So no secret stands in the settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stream import masking

SecretPlace = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")]
"""``env:NAME`` or ``file:PATH``."""


def read_secret(place: str, environment: Mapping[str, str] | None = None) -> str:
    """The secret at a place, without blanks around it.

    Args:
        environment: variables to look in; None takes the process's own.

    Raises:
        ValueError: it is not there, or is empty; the message names its place.
    """
    kind, _, where = place.partition(":")
    if kind == "env":
        secret = (os.environ if environment is None else environment).get(where, "")
    else:
        try:
            secret = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ValueError(f"{place} cannot be read: {why}") from None
    if not (found := secret.strip()):
        raise ValueError(f"{place} is empty")
    masking.learn("secret", found)
    return found
