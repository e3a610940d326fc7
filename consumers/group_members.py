"""Asks a broker who is in a consumer group, in a process of its own.

Comes in: options of a client and the name of a group. Goes out: the members' client ids; `group_namespace`
looks whose they are. Such a request goes to the group's coordinator. If a broker fails while the request is
under way, an assertion in librdkafka (`rd_kafka_admin_coord_request`, 2.16) may end the process that asked:
that must not be a worker. No other request of a role goes that way.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.wire import TokenProvider, token_provider

log = logging.getLogger(__name__)

START_SECONDS = 5.0
"""Time for an interpreter to start, on a busy machine."""


def members_of(group: str, options: Mapping[str, Any], timeout_seconds: float) -> list[str]:
    """Client ids of the members of a group; none where the broker does not say.

    Args:
        options: of a client of librdkafka; what is no text and no number is left out, but for who
            provides its tokens.
    """
    provider = options.get("oauth_cb")
    plain = {key: to for key, to in options.items() if isinstance(to, str | int | float)}
    # Through standard input: options may hold passwords, and others can see arguments.
    question = json.dumps(
        {
            "group": group,
            "options": plain,
            "timeout_seconds": timeout_seconds,
            "tokens": provider.name if isinstance(provider, TokenProvider) else "",
        }
    )
    try:
        asked = subprocess.run(  # noqa: S603 - this interpreter, and a module of ours
            [sys.executable, "-m", __name__],
            input=question,
            capture_output=True,
            text=True,
            timeout=timeout_seconds + START_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.info("members of group %s: who asked has no answer: %s", group, error)
        return []
    answer: dict[str, Any] = json.loads(asked.stdout)
    if "error" in answer:
        log.info("members of group %s: %s", group, answer["error"])
    return list(answer.get("members", []))


def _ask(
    group: str, options: dict[str, Any], timeout_seconds: float, tokens: str
) -> dict[str, Any]:
    if tokens:
        options["oauth_cb"] = token_provider(tokens)
    # A client ends with its last reference, and its requests with it: so it has a name here.
    admin = AdminClient(options)
    described = admin.describe_consumer_groups([group], request_timeout=timeout_seconds)
    try:
        found = described[group].result(timeout_seconds)
    except (KafkaException, TimeoutError) as error:
        return {"error": str(error.args[0]) if error.args else "no answer"}
    return {"members": [member.client_id for member in found.members]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_ask(**json.loads(sys.stdin.read()))))
