"""No secret is shown: not where it stands, and not where somebody else quotes it."""

from __future__ import annotations

import json

import pytest

from stream import masking
from stream.masking import MASK, learn, mask, mask_facts, shown, shown_address


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("redis://shop:hunter2@redis:6379/0", "redis://shop:***@redis:6379/0"),
        ("redis://:hunter2@redis:6379/0", "redis://:***@redis:6379/0"),
        ("rediss://hunter2@redis/0", "rediss://***@redis/0"),
        ("redis://a:p@hunter2@redis/0", "redis://a:***@redis/0"),
        ("redis://a:hunter2/?#b@redis/0", "redis://a:***@redis/0"),
        ("redis://a:hunter%402@redis/0", "redis://a:***@redis/0"),
        ("redis://redis/0?password=hunter2&db=3", "redis://redis/0?password=***&db=3"),
        ("redis://redis/0?pass%77ord=hunter2", "redis://redis/0?pass%77ord=***"),
        ("redis://redis/0?socket_timeout=2", "redis://redis/0?socket_timeout=2"),
        ("redis://redis/0?ssl_password=a#hunter2", "redis://redis/0?ssl_password=***"),
        ("redis://redis/0#hunter2", "redis://redis/0#***"),
        ("unix://shop:hunter2@/run/redis.sock?db=1", "unix://shop:***@/run/redis.sock?db=1"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, told: str) -> None:
    assert shown_address(address) == told
    assert mask(f"no answer from '{address}'") == f"no answer from '{told}'"


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config",
        "sasl.jaas.config", "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.extensions", "sasl.kerberos.kinit.cmd", "ssl.key.password", "ssl.key.pem",
        "ssl.keystore.password", "ssl.certificate.pem", "ssl.ca.pem", "sasl.pasword", "SASL.PASSWORD",
        "store.namespace_key", "some.token", "schema.registry.basic.auth.credentials.source",
    ],
)  # fmt: skip
def test_properties_that_are_secret(name: str) -> None:
    assert shown(name, "hunter2") == MASK
    assert shown("broker.properties", {name: "hunter2"}) == {name: MASK}
    head, _, rest = name.partition(".")
    assert shown("broker.properties", {head: {rest: "hunter2"}}) == {head: {rest: MASK}}
    learn("broker.properties", {name: "hunter2"})
    assert mask("refused: 'hunter2'") == "refused: '***'"


@pytest.mark.parametrize(
    "name",
    [
        "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "client.id",
        "ssl.ca.location", "ssl.key.location", "enable.ssl.certificate.verification",
        "sasl.oauthbearer.method", "sasl.oauthbearer.client.id",
    ],
)  # fmt: skip
def test_properties_that_are_not(name: str) -> None:
    assert shown(name, "value") == "value"
    learn("broker.properties", {name: "value"})
    assert mask("a value") == "a value"


def test_a_secret_is_found_again_however_it_is_written() -> None:
    secret = 'päss/w"ord\\ 1'  # noqa: S105 - nobody's
    learn("store.url", "redis://shop:p%C3%A4ss%2Fw%22ord%5C%201@redis")
    for written in (secret, repr(secret), json.dumps(secret), "p%C3%A4ss%2Fw%22ord%5C%201"):
        assert mask(f"AUTH {written} failed").replace('"', "").replace("'", "") == "AUTH *** failed"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    learn("a.password", "hunter")
    learn("b.password", "hunter22")
    assert mask("hunter22 and hunter") == "*** and ***"


def test_short_and_empty_secrets_are_only_masked_where_they_stand() -> None:
    learn("a.password", "a")
    learn("b.password", "")
    assert mask("a word of caution") == "a word of caution"
    assert shown("a.password", "a") == MASK
    assert shown("a.password", "") == ""


def test_facts_are_masked_in_every_corner() -> None:
    learn("a.password", "hunter2")
    assert mask_facts({"a": ["hunter2", ("redis://x:y@z", 1)]}) == {
        "a": ["***", ["redis://x:***@z", 1]]
    }


def test_what_was_learned_in_another_test_is_forgotten() -> None:
    assert masking._known == set()
