"""Who may ask the API for what."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest
from pydantic import ValidationError

from stream.access import Client, Guard, Scope, is_loopback
from stream.config import Api, Settings
from stream.config_layers import load
from stream.masking import mask

GOOD, OTHER = "a-token-of-some-length-1234", "another-token-of-length-567"


def client(name: str, place: str, *scopes: Scope) -> Client:
    return Client(name=name, token=place, scopes=scopes or (Scope.READ,))


def test_a_client_is_known_by_its_token_and_by_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{OTHER}\n")
    guard = Guard(
        [client("page", "env:PAGE"), client("crm", f"file:{tmp_path}/token", Scope.RENAME)],
        {"PAGE": GOOD},
    )
    assert guard.asks_for_tokens
    found = guard.whose(OTHER)
    assert found is not None
    assert (found.name, found.scopes) == ("crm", (Scope.RENAME,))
    for wrong in ("", GOOD[:-1], f"{GOOD} ", GOOD.upper(), "\udcff", "é" * 30):
        assert guard.whose(wrong) is None
    assert mask(f"it was {GOOD}") == "it was ***"


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is, and whether it is one: as many comparisons, each of as many bytes."""
    sizes: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        sizes.append((len(a), len(b)))
        return compare(a, b)

    guard = Guard([client("a", "env:A"), client("b", "env:B")], {"A": GOOD, "B": OTHER})
    monkeypatch.setattr("stream.access.hmac.compare_digest", counted)
    for token in (GOOD, OTHER, "", "x" * 100_000):
        sizes.clear()
        guard.whose(token)
        assert sizes == [(32, 32)] * 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "client a: env:A is empty"),
        ("short", "client a: env:A is no token; expected 24 or more"),
        ("ä" * 30, "client a: env:A is no token"),
        ("a b\tc" * 10, "client a: env:A is no token"),
    ],
)
def test_a_token_that_could_be_guessed_is_refused_and_not_shown(value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        Guard([client("a", "env:A")], {"A": value})
    assert not value or value not in str(refused.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="client a: file:/nowhere cannot be read: No such file"):
        Guard([client("a", "file:/nowhere")])


def test_two_clients_have_two_tokens() -> None:
    with pytest.raises(ValueError, match="client b: the token is another client's, too"):
        Guard([client("a", "env:A"), client("b", "env:A")], {"A": GOOD})


@pytest.mark.parametrize(
    ("host", "here"),
    [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("127.9.9.9", True),
     ("0.0.0.0", False),  # noqa: S104
      ("::", False), ("10.0.0.1", False), ("localhost.evil.example", False), ("", False)],
)  # fmt: skip
def test_loopback_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_without_clients_only_this_machine_is_listened_to() -> None:
    assert Api().host == "127.0.0.1"
    with pytest.raises(ValidationError, match=r"declare api\.clients, or listen on 127\.0\.0\.1"):
        Settings.model_validate({"api": {"host": "0.0.0.0"}})  # noqa: S104 - what is refused
    one = {"name": "crm", "token": "env:TOKEN"}
    told = Settings.model_validate({"api": {"host": "0.0.0.0", "clients": [one]}})  # noqa: S104
    assert told.api.clients[0].scopes == (Scope.READ,)
    with pytest.raises(ValidationError, match="the name 'crm' is used twice"):
        Settings.model_validate({"api": {"clients": [one, one]}})


def test_clients_may_be_declared_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "clients").write_text(
        '[{"name": "crm", "token": "env:CRM", "scopes": ["read", "pause"]}]\n'
    )
    told, _ = load(environment={"SEGSTREAM_API__CLIENTS_FILE": f"{tmp_path}/clients"})
    assert told.api.clients == (client("crm", "env:CRM", Scope.READ, Scope.PAUSE),)
