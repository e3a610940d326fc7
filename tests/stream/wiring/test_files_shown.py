"""What stays of settings where files are shown; the whole of it runs in `tests/integration/test_first_hour.py`."""

from __future__ import annotations

import tomllib

from stream.config import Settings
from stream.wiring.files_shown import FIRST_MODEL_USERS, REFIT_SECONDS, own_settings

GIVEN = """
[broker]
bootstrap = "kafka:9092"
properties = { "security.protocol" = "SSL" }
[store]
url = "redis://redis:6379/0"
[topics]
partitions = 12
replication = 3
[learning]
segments = 5
[[kinds]]
kind = "vip"
rank = 1
when = { orders_30d = { min = 3 } }
[[campaigns]]
name = "coupon"
when = { kind_to = ["vip"] }
[[endpoints]]
name = "mailer"
url = "https://mailer.example.org/hooks/segstream"
secrets = ["env:MAILER_SECRET"]
campaigns = ["coupon"]
per_second = 50
"""


def own(text: str) -> Settings:
    settings = Settings.model_validate(tomllib.loads(text))
    return own_settings(settings, "127.0.0.1:1", "redis://127.0.0.1:2", 3)


def test_words_and_segments_stay_and_nobody_elses_servers_are_asked() -> None:
    found = own(GIVEN)
    assert found.learning.segments == 5
    assert [rule.kind for rule in found.kinds] == ["vip"]
    assert (found.broker.bootstrap, found.broker.properties) == ("127.0.0.1:1", {})
    assert found.store.url == "redis://127.0.0.1:2"
    assert found.topics.replication == 1
    assert found.clock.mode == "watermark"


def test_nobody_is_written_to_about_a_history() -> None:
    found = own(GIVEN)
    assert (found.campaigns, found.endpoints) == ((), ())


def test_how_often_and_from_whom_is_learned_is_as_given_or_fits_a_file() -> None:
    found = own(GIVEN).learning
    assert (found.refit_seconds, found.first_model_users) == (REFIT_SECONDS, FIRST_MODEL_USERS)
    given = own("[learning]\nrefit_seconds = '3d'\nfirst_model_users = 40").learning
    assert (given.refit_seconds, given.first_model_users) == (3 * 86_400, 40)
