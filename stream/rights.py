"""Says which rights each role needs of store and broker, once.

Comes in: a role, and a namespace or settings. Goes out: the commands it may have to give, and the line that makes
a Redis user of them; what it reads and writes of Kafka, and the commands that allow it. ``ops/guide/redis.md``
and ``ops/guide/kafka.md`` show the lines, the doctor names them, and tests hold all of these, and the roles, to
what stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from stream.config import Settings

SCRIPTS = ("evalsha", "script|load")
LEASE = ("get", "set", "del")
READ = ("get", "hget", "hgetall", "hmget", "hscan", "xlen", "xread")

OWNER = (
    *(*SCRIPTS, *LEASE),
    *("exec", "exists", "hdel", "hget", "hmget", "hscan", "hset"),
    *("multi", "set", "watch", "xadd", "xdel", "xlen", "xread"),
)
"""Of a role that owns partitions beside the activity workers, and sends what it decides."""

RIGHTS: Mapping[str, tuple[str, ...]] = {
    "activity": (
        *SCRIPTS,
        *("append", "del", "exec", "get", "hget", "hmget", "hscan", "hset"),
        *("multi", "set", "unlink", "watch", "xadd", "xlen"),
    ),
    "trainer": (*SCRIPTS, *LEASE, "getrange", "hget", "hgetall", "hmget", "hset"),
    "publisher": (*SCRIPTS, *LEASE, "exists", "hget", "hmget", "hset", "xdel", "xlen", "xread"),
    "reader": READ,
    "api": ("get", "hget", "hgetall", "hmget", "hscan", "hset", "xlen"),
    "operator": (*READ, "hset", "set"),
    "doctor": (*SCRIPTS, "get", "set", "del", "hget", "config|get"),
}
"""By role: reader looks, explains and audits; operator also renames, applies and republishes;
api looks, and renames.

A role that is not named here has the rights of an `OWNER`: `campaigns` and `webhooks` are two.
"""

ASKED = ("info", "select")
"""What a role does without if it must: to know the server, and to use another database than 0."""


def commands(role: str) -> list[str]:
    """Everything a role may give, those it can do without among them."""
    return sorted({*RIGHTS.get(role, OWNER), *ASKED})


def acl_line(role: str, namespace: str, password: str = "PASSWORD") -> str:  # noqa: S107 - a blank
    """The command that makes a user for a role, whatever that user was before."""
    keys = f"%R~{namespace}:*" if role == "reader" else f"~{namespace}:*"
    given = " ".join(f"+{command}" for command in commands(role))
    return f"ACL SETUSER segstream-{role} reset on >{password} {keys} {given}"


# -- broker ---------------------------------------------------------------------------------------


class BrokerRight(NamedTuple):
    """An operation on topics, or on consumer groups whose names begin with a text.

    Attributes:
        operation: as Kafka's access control lists name it.
    """

    operation: Literal["READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS", "CREATE"]
    kind: Literal["topic", "group"]
    names: tuple[str, ...]


BROKER_ROLES = (
    "activity", "trainer", "publisher", "campaigns", "webhooks", "api", "reader", "operator", "doctor",
)  # fmt: skip


def topics_of(settings: Settings) -> tuple[str, ...]:
    """Every topic of a pipeline."""
    names = settings.topics
    read = (*names.inputs, names.changes, names.models, names.triggers, names.control)
    return (*read, *(names.dlq(one) for one in (*names.inputs, names.triggers)))


def broker_rights(role: str, settings: Settings) -> list[BrokerRight]:
    """What a role does with topics and groups; to read and to write are to describe as well.

    Every client that reads names a group, which begins with ``broker.group``, though only members use it.
    """
    names = settings.topics
    letters = tuple(names.dlq(one) for one in names.inputs)
    parked = names.dlq(names.triggers)
    everything = topics_of(settings)
    read, write = {
        "activity": ((*names.inputs, names.models, names.changes), letters),
        "trainer": ((names.models,), (names.models, names.changes)),
        "publisher": ((names.changes,), (names.changes,)),
        "campaigns": (
            (names.changes, names.purchases, names.control, names.triggers),
            (names.triggers,),
        ),
        "webhooks": ((names.triggers, parked, names.control, names.changes), (parked,)),
        "api": ((names.changes,), (names.control,)),
        "reader": (everything, ()),
        "operator": (everything, tuple(one for one in everything if one != names.models)),
        "doctor": (names.inputs, ()),
    }[role]
    found = [BrokerRight("DESCRIBE", "topic", everything)]
    if read:
        found += [
            BrokerRight("READ", "topic", read),
            BrokerRight("READ", "group", (settings.broker.group,)),
        ]
    if write:
        found.append(BrokerRight("WRITE", "topic", write))
    if role == "doctor":
        found += [
            BrokerRight("DESCRIBE_CONFIGS", "topic", everything),
            BrokerRight("CREATE", "topic", everything),
        ]
    return found


def broker_acl_lines(role: str, settings: Settings) -> Iterator[str]:
    """The commands that give a user the rights of a role."""
    for operation, kind, names in broker_rights(role, settings):
        named = " ".join(f"--{kind} {name}" for name in names)
        pattern = " --resource-pattern-type prefixed" if kind == "group" else ""
        yield (
            "kafka-acls.sh --bootstrap-server kafka:9092 --command-config admin.properties --add"
            f" --allow-principal User:segstream-{role} --operation {operation} {named}{pattern}"
        )
