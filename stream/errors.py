"""What can go wrong outside this program, in words for whoever has to put it right.

Comes in: a broker that does not answer, a topic that is not there, a server that does not start.
Goes out: exceptions whose message is the whole story, to be shown as it is, and librdkafka's own
complaints as log records instead of lines on the terminal. `stream.store.state` has its own
`StoreUnavailableError`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from stream.config import ConfigError
from stream.told import ToldError

BROKER_LOG = logging.getLogger("segstream.broker")
# Without a handler Python prints warnings to stderr by itself, into the middle of a progress bar.
BROKER_LOG.addHandler(logging.NullHandler())
LIBRARY_LOG = logging.getLogger("segstream.broker.librdkafka")
# Every failed attempt to connect is an error to the library; what matters of it comes through
# `report_broker_error`. The command's --verbose shows all of it.
LIBRARY_LOG.setLevel(logging.CRITICAL)
QUIET_SECONDS = 10.0


class BrokerUnavailableError(ToldError):
    """The broker does not answer; what was asked of it may or may not have happened."""


class TopicMissingError(ToldError):
    """A topic that should exist does not."""


class OffsetOutOfRangeError(ToldError):
    """A partition no longer has, or does not yet have, the offset to read from."""


class ServerStartError(ToldError):
    """A server of our own could not be started."""


_Client = TypeVar("_Client")


def kafka_client(kind: Callable[[dict[str, Any]], _Client], options: dict[str, Any]) -> _Client:
    """Make a client of librdkafka.

    Raises:
        ConfigError: librdkafka does not accept the options.
        BrokerUnavailableError: this machine has no room for a client now, threads or files, or
            `broker.oauth_provider` gives no token.
    """
    if options.get("group.id") == "":
        # A consumer without a group ends the process, by an assertion in its C code.
        raise ConfigError("broker.group, or group.id of broker.properties, is empty: name a group")
    if "transactional.id" in options:
        # The client would be made, and every record it is given would be an error.
        raise ConfigError("broker.properties: transactional.id: records are sent one by one")
    try:
        return kind(options)
    except KafkaException as error:
        inner = error.args[0]
        passing = (KafkaError._CRIT_SYS_RESOURCE, KafkaError.SASL_AUTHENTICATION_FAILED)  # noqa: SLF001 - its public name
        if inner.code() in passing:
            raise BrokerUnavailableError(f"no client can be made: {inner.str()}") from None
        said = str(inner.str()).strip()
    except (TypeError, ValueError, AttributeError, SystemError) as error:
        # Callbacks and objects, which no text can be, and text that is none.
        said = str(error.__cause__ or error)
    raise ConfigError(
        f"broker.properties: {said}; expected are names and values of librdkafka's CONFIGURATION.md"
    ) from None


REFUSALS = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


def right_needed(error: KafkaError) -> str:
    """The remedy for an access control list that refuses us, to end a message; empty for another error."""
    if error.code() in REFUSALS:
        return " (ops/guide/kafka.md has the rights of each role)"
    return ""


_said: dict[str, float] = {}


def report_broker_error(error: KafkaError) -> None:
    """Log what librdkafka says about its connections; an ``error_cb``.

    It repairs connections by itself, so only "nobody answers" is a warning and only what it
    gives up on is an error.
    """
    if error.fatal():
        BROKER_LOG.error("%s", error.str())
    elif error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - that is its public name
        now = time.monotonic()
        if now - _said.get("down", -QUIET_SECONDS) >= QUIET_SECONDS:
            _said["down"] = now
            BROKER_LOG.warning("no broker answers, trying on: %s", error.str())
    else:
        BROKER_LOG.info("%s", error.str())
