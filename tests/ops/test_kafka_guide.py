"""The guide's commands for Kafka give each role the rights that are declared, and all roles are there."""

from __future__ import annotations

import re

import pytest

from producers import topics
from stream.campaigns.triggers import triggers_outlet
from stream.config import Settings
from stream.rights import BROKER_ROLES, broker_acl_lines, broker_rights, topics_of
from stream.webhooks.letters import letters_outlet
from stream.wiring.roles import ROLES
from tests.ops.queries import ROOT

GUIDE = (ROOT / "ops/guide/kafka.md").read_text()
SETTINGS = Settings()


def written() -> dict[str, list[str]]:
    """Commands by role."""
    found = re.findall(r"^### (\w+)\n\n.*?```text\n(.*?)```", GUIDE, re.MULTILINE | re.DOTALL)
    return {role: lines.splitlines() for role, lines in found}


def test_the_guide_has_the_rights_of_every_role() -> None:
    assert written() == {role: list(broker_acl_lines(role, SETTINGS)) for role in BROKER_ROLES}


def test_every_role_that_ships_has_rights() -> None:
    assert ROLES.keys() - {"all"} <= set(BROKER_ROLES)


@pytest.mark.parametrize("role", [name for name in ROLES if name in BROKER_ROLES])
def test_a_role_writes_where_it_is_declared_to(role: str) -> None:
    written_to = {
        name
        for right in broker_rights(role, SETTINGS)
        if (right.operation, right.kind) == ("WRITE", "topic")
        for name in right.names
    }
    declared = {outlet.topic for outlet in ROLES[role].outlets(SETTINGS)}
    assert declared <= written_to <= set(topics_of(SETTINGS))


def test_every_topic_that_is_planned_is_thought_of() -> None:
    plans = topics.plan(SETTINGS, [triggers_outlet(SETTINGS), letters_outlet(SETTINGS)])
    assert {plan.name for plan in plans} == set(topics_of(SETTINGS))


def test_nobody_but_the_trainer_writes_models() -> None:
    writers = {
        role
        for role in BROKER_ROLES
        for right in broker_rights(role, SETTINGS)
        if right.operation == "WRITE" and SETTINGS.topics.models in right.names
    }
    assert writers == {"trainer"}
