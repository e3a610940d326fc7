"""What every Kafka client of ours begins with: where brokers are, whom it tells of errors, how it shows who it is.

Comes in: `settings.broker`. Goes out: options of librdkafka that clients of all kinds share. Whoever makes a
client adds its own, and ``broker.properties`` last.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import import_module
from typing import Any

from stream.config import Broker, ConfigError
from stream.errors import LIBRARY_LOG, report_broker_error

log = logging.getLogger(__name__)


def wire_options(broker: Broker) -> dict[str, Any]:
    """Options that clients of all kinds share.

    Raises:
        ConfigError: the function in ``broker.oauth_provider`` cannot be loaded.
    """
    options: dict[str, Any] = {
        "bootstrap.servers": broker.bootstrap,
        "client.id": "segstream",
        # A broker that comes back is found within two seconds, not ten.
        "reconnect.backoff.max.ms": 2_000,
        "logger": LIBRARY_LOG,
        "error_cb": report_broker_error,
    }
    if broker.oauth_provider:
        options["oauth_cb"] = token_provider(broker.oauth_provider)
    return options


class TokenProvider:
    """Gives a client its token (SASL/OAUTHBEARER), before the one that it has expires.

    Attributes:
        name: module and function, as the settings have it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, _, function = name.partition(":")
        try:
            self._provide = getattr(import_module(module), function)
        except Exception as error:
            raise ConfigError(
                f"broker.oauth_provider = {name}: {type(error).__name__}: {error}; expected is"
                " module:function of a module that is installed beside segstream, or on PYTHONPATH"
            ) from error

    def __call__(self, config: str) -> tuple[Any, ...]:
        """What the function gives; librdkafka tries again in ten seconds if that is an error.

        Args:
            config: ``sasl.oauthbearer.config`` of ``broker.properties``, empty without.
        """
        try:
            token, expires, *more = self._provide(config)
            return str(token), float(expires), *more
        except Exception as error:
            log.error("no token from %s: %s: %s", self.name, type(error).__name__, error)  # noqa: TRY400 - whose trace it is nobody here knows
            raise


@lru_cache
def token_provider(name: str) -> TokenProvider:
    """The one of a name; its module is loaded once."""
    return TokenProvider(name)
