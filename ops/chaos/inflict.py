"""Does a fault: what each kind of the plan means for servers, roles and connections.

Comes in: a stage with live traffic, a fault. Goes out: in words, what was done beyond the plan. When
it returns, whatever it took away is there again, though nothing has recovered yet.
"""

from __future__ import annotations

from collections.abc import Callable

import redis

from ops.chaos.plan import BROKER, PUBLISHERS, STORE, Fault, Kind
from ops.chaos.proxy import Way
from ops.chaos.stage import Stage
from ops.chaos.traffic import GARBAGE_EACH, Traffic
from stream.servers import Server
from stream.store.redis import connect

BACKLOG_SECONDS = 0.7
"""Time in which an outbox gets a good number of entries."""
DELIVERING_SECONDS = 0.4
"""Time after which a publisher is sure to wait for a broker that stands still."""
DELIVERED_SECONDS = 0.4
"""Time in which a broker that goes on takes what was sent to it meanwhile."""
SERVER_SECONDS = 10.0


def inflict(stage: Stage, traffic: Traffic, fault: Fault) -> str:  # noqa: C901 - a case a kind
    """Do a fault to its end.

    Returns:
        What the plan cannot know: how far the store went back.
    """
    match fault.kind:
        case Kind.KILL_ROLE:
            stage.roles[fault.target].kill()
            _pass(stage, fault)
            stage.roles[fault.target].start()
        case Kind.END_ROLE:
            stage.end_roles(fault.target)
            _pass(stage, fault)
            stage.roles[fault.target].start()
        case Kind.FREEZE_ROLE:
            stage.roles[fault.target].freeze()
            _pass(stage, fault)
            stage.roles[fault.target].thaw()
        case Kind.KILL_BROKER:
            _restart(stage, stage.broker, fault)
        case Kind.KILL_STORE:
            _restart(stage, stage.store, fault)
        case Kind.FREEZE_BROKER | Kind.FREEZE_STORE:
            stage.freeze_server(fault.target)
            _pass(stage, fault)
            stage.thaw_server(fault.target)
        case Kind.LOSE_SECOND | Kind.PUT_BACK:
            return _roll_back(stage, fault)
        case Kind.FLUSH_SCRIPTS:
            with _client(stage) as client:
                client.script_flush()
        case Kind.LOSE_EVERYTHING:
            with _client(stage) as client:
                client.flushall()
        case Kind.CUT:
            stage.proxy.cut(fault.target)
        case Kind.DELAY:
            stage.proxy.delay(fault.target, fault.amount)
            _pass(stage, fault)
            stage.proxy.delay(fault.target, 0.0)
        case Kind.HOLD:
            stage.proxy.hold(fault.target, *Way)
            _pass(stage, fault)
            stage.proxy.release(fault.target)
        case Kind.LOSE_REPLIES:
            stage.proxy.hold(fault.target, Way.TO_CLIENT)
            _pass(stage, fault)
            stage.proxy.cut(fault.target)
            stage.proxy.release(fault.target)
        case Kind.FLOOD:
            traffic.garbage_each = fault.amount
            _pass(stage, fault)
            traffic.garbage_each = GARBAGE_EACH
        case Kind.LOSE_SECOND_BROKER_FROZEN:
            _send_backlog(stage, lambda: stage.freeze_server(BROKER))
            told = _roll_back_and_go_on(stage, fault)
            stage.thaw_server(BROKER)
            return told
        case Kind.LOSE_SECOND_HELD:
            _send_backlog(stage, lambda: stage.proxy.hold(fault.target, *Way))
            told = _roll_back_and_go_on(stage, fault)
            stage.proxy.release(fault.target)
            return told
        case Kind.LOSE_SECOND_PUBLISHER_KILLED:
            for name in PUBLISHERS:
                stage.roles[name].kill()
            told = _roll_back(stage, fault)
            for name in PUBLISHERS:
                stage.roles[name].start()
            return told
        case Kind.LOSE_SECOND_UNACKNOWLEDGED | Kind.PUT_BACK_UNACKNOWLEDGED:
            return _roll_back_unacknowledged(stage, fault)
    return ""


def mend(stage: Stage) -> None:
    """See that everything runs, whatever the last fault left."""
    stage.broker.start()
    stage.store.start()
    for role in stage.roles.values():
        role.start()


def _pass(stage: Stage, fault: Fault) -> None:
    """Let the fault last; half-way through, another role may be killed as well."""
    if not fault.killed:
        stage.pass_time(fault.seconds)
        return
    stage.pass_time(fault.seconds / 2)
    stage.roles[fault.killed].kill()
    stage.pass_time(fault.seconds / 2)
    stage.roles[fault.killed].start()


def _restart(stage: Stage, server: Server, fault: Fault) -> None:
    server.stop(kill=True)
    _pass(stage, fault)
    server.start()


def _roll_back(stage: Stage, fault: Fault) -> str:
    went_back = stage.store.kill_and_put_back(fault.amount)
    _pass(stage, fault)
    stage.store.start()
    return f"{STORE} went back by {went_back:.1f} s"


def _roll_back_and_go_on(stage: Stage, fault: Fault) -> str:
    """The store is there again at once; the fault lasts on."""
    went_back = stage.store.kill_and_put_back(fault.amount)
    stage.store.start()
    _pass(stage, fault)
    return f"{STORE} went back by {went_back:.1f} s"


def _roll_back_unacknowledged(stage: Stage, fault: Fault) -> str:
    """What the broker has taken, no publisher has acknowledged; the workers go on meanwhile.

    A publisher that waits for a broker has sent what it took from the outbox. It is stopped there;
    then the broker takes what lies in its connections.
    """
    publishers = [stage.roles[name] for name in PUBLISHERS]
    _send_backlog(stage, lambda: stage.freeze_server(BROKER))
    for role in publishers:
        role.freeze()
    stage.thaw_server(BROKER)
    stage.pass_time(DELIVERED_SECONDS)
    told = _roll_back_and_go_on(stage, fault)
    for role in publishers:
        role.thaw()
    return told


def _send_backlog(stage: Stage, block: Callable[[], None]) -> None:
    """Let the outbox fill, and a publisher send all of it to a broker that it does not reach.

    So many changes are under way at once, of many commits.
    """
    for name in PUBLISHERS:
        stage.roles[name].freeze()
    stage.pass_time(BACKLOG_SECONDS)
    block()
    for name in PUBLISHERS:
        stage.roles[name].thaw()
    stage.pass_time(DELIVERING_SECONDS)


def _client(stage: Stage) -> redis.Redis:
    return connect(stage.store.url, SERVER_SECONDS)
