"""Endpoints that cannot work are refused by their key, and secrets are shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stream import masking
from stream.config import ConfigError, Settings
from stream.config_layers import as_file, effective, load
from stream.webhooks.declare import secrets_of
from tests.stream.webhooks.making import OTHER_SECRET, SECRET, endpoint

CAMPAIGN = {"name": "win-back", "when": {"kind_to": ["at_risk"]}}


def declared(**fields: Any) -> dict[str, Any]:
    told = {"name": "crm", "url": "https://crm.example/in", "secrets": ["env:CRM"]}
    return {"campaigns": [CAMPAIGN], "endpoints": [told | fields]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "http://crm.example/in"}, "needs private = true"),
        ({"url": "ftp://crm.example/in"}, "expected https://"),
        ({"url": "https://me:word@crm.example/in"}, "without user"),
        ({"url": "https:///in"}, "expected https://"),
        ({"url": "https://@crm.example/in"}, "without user"),
        ({"url": "https://crm.example\\@127.0.0.1/in"}, "without user"),
        ({"url": "https://crm.example\\.example/in"}, "expected https://"),
        ({"url": "https://crm%2eexample/in"}, "expected https://"),
        ({"url": "https://[fe80::1%25eth0]/in"}, "expected https://"),
        ({"url": "https://[::1/in"}, "expected https://"),
        ({"url": "https://crm.example:80:443/in"}, "expected https://"),
        ({"url": "https://crm.example/in#secret"}, "without user, password, fragment"),
        ({"url": "https://crm.example:0/in"}, "expected https://"),
        ({"url": "https://crm.example:x/in"}, "expected https://"),
        ({"url": "HTTP://crm.example/in"}, "needs private = true"),
        ({"url": "https://crm.exa mple/in"}, "and blanks"),
        ({"url": "https://crm.example/in\n"}, "and blanks"),
        ({"url": "https://b\u00fccher.example/in"}, "in ASCII"),
        ({"url": "https://crm..example/in"}, "expected https://"),
        ({"url": "https://" + "a" * 64 + ".example/in"}, "expected https://"),
        ({"secrets": []}, "needs one"),
        ({"secrets": [SECRET]}, "should match pattern"),
        ({"campaigns": ["lose-them"]}, "there is no campaign 'lose-them'"),
        ({"format": "fax"}, "'standard'"),
        ({"per_second": 0}, "greater than 0"),
        ({"color": "red"}, "Extra inputs"),
        ({"name": "CRM"}, "should match pattern"),
    ],
)
def test_what_cannot_work_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate(declared(**fields))


def test_a_name_is_used_once_and_campaigns_are_needed() -> None:
    told = declared()
    with pytest.raises(ValidationError, match="used twice"):
        Settings.model_validate(told | {"endpoints": told["endpoints"] * 2})
    with pytest.raises(ValidationError, match="no campaigns are declared"):
        Settings.model_validate({"endpoints": told["endpoints"]})


def test_settings_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        declared(private=True, url="http://127.0.0.1:9/", per_second=2.5)
        | {"webhooks": {"retry_seconds": ["1s", "2m"]}}
    )
    file = tmp_path / "shop.toml"
    file.write_text(as_file(settings))
    assert load(file, {})[0] == settings
    assert settings.webhooks.rules(4).retries_ms == [1_000, 120_000]
    assert settings.webhooks.rules(4).share == 0.25


def test_secrets_are_read_from_where_they_are_and_masked(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    one = endpoint(secrets=[f"file:{file}", "env:OLD"])
    assert secrets_of(one, {"OLD": OTHER_SECRET}) == (SECRET, OTHER_SECRET)
    assert masking.mask(f"x {SECRET} y {OTHER_SECRET}") == "x *** y ***"


@pytest.mark.parametrize("told", ["", "  \n", "hunter2", "whsec_short", "whsec_" + "*" * 40])
def test_a_secret_that_is_none_is_not_told(told: str) -> None:
    with pytest.raises(ValueError, match="env:S") as raised:
        secrets_of(endpoint(secrets=["env:S"]), {"S": told})
    assert not told.strip() or told not in str(raised.value)


def test_any_word_is_a_key_of_a_receiver_that_is_shown_it() -> None:
    assert secrets_of(endpoint(format="klaviyo", secrets=["env:S"]), {"S": "pk_1"}) == ("pk_1",)


def test_a_key_that_no_header_can_carry_is_not_told() -> None:
    for told in ("pk_1\nx", "pk_\u00fc", "pk\x00"):
        with pytest.raises(ValueError, match="env:S has characters") as raised:
            secrets_of(endpoint(format="klaviyo", secrets=["env:S"]), {"S": told})
        assert told not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere cannot be read"):
        secrets_of(endpoint(secrets=[f"file:{tmp_path}/nowhere"]))


def test_no_secret_stands_among_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM", SECRET)
    settings = Settings.model_validate(declared())
    assert secrets_of(settings.endpoints[0]) == (SECRET,)
    for shown in (str(effective(settings, {})), as_file(settings), repr(settings)):
        assert "env:CRM" in shown
        assert SECRET not in shown


def test_an_endpoint_that_names_no_campaign_in_a_list_is_refused(tmp_path: Path) -> None:
    """An empty list would mean all of them."""
    file = tmp_path / "shop.toml"
    file.write_text(as_file(Settings.model_validate(declared())), encoding="utf-8")
    text = file.read_text(encoding="utf-8")
    assert 'name = "crm"' in text
    file.write_text(text.replace('name = "crm"', 'campaigns = [], name = "crm"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"endpoints\.0\.campaigns: give one at least"):
        load(file, {})


def test_an_endpoint_wants_the_campaigns_it_names_or_all() -> None:
    assert endpoint().wants("any")
    some = endpoint(campaigns=["win-back"])
    assert some.wants("win-back")
    assert not some.wants("wake-up")
