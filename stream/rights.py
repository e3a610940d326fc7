"""Says which rights each role needs of the store, once.

Comes in: a role and a namespace. Goes out: the commands it may have to give, and the line that makes
a Redis user of them. ``ops/guide/redis.md`` shows the lines, the doctor names them, and a test holds
both, and the roles, to what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

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
