"""Every setting says where it came from, and a wrong one stops the start and says why."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stream.config import ConfigError, Settings
from stream.config_layers import as_file, as_toml, effective, load
from stream.features import DEFAULT_FEATURES
from stream.sentinels import sentinel_address

EMPTY: dict[str, str] = {}


def written(folder: Path, text: str) -> Path:
    file = folder / "segstream.toml"
    file.write_text(text, encoding="utf-8")
    return file


def complaint(
    file: Path | None = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, Any] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, environment or EMPTY, flags)
    return str(caught.value)


# -- layers --------------------------------------------------------------------------------------


def test_nothing_given_is_all_defaults() -> None:
    settings, origins = load(None, EMPTY)
    assert settings == Settings()
    assert origins == {}


def test_the_later_layer_wins_key_by_key(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [store]
        namespace = "from-file"
        timeout_seconds = "2s"
        outbox_cap = 7
        [topics]
        partitions = 3
        """,
    )
    environment = {
        "SEGSTREAM_STORE__NAMESPACE": "from-environment",
        "SEGSTREAM_STORE__TIMEOUT_SECONDS": "250ms",
        "SEGSTREAM_OTHER": "no section, so none of ours",
        "STORE__NAMESPACE": "no prefix",
    }
    flags = {"store": {"namespace": "from-flag"}}
    settings, origins = load(file, environment, flags)
    assert settings.store.namespace == "from-flag"
    assert settings.store.timeout_seconds == 0.25
    assert settings.store.outbox_cap == 7
    assert settings.topics.partitions == 3
    assert origins == {
        "store.namespace": "flag",
        "store.timeout_seconds": "environment",
        "store.outbox_cap": f"file {file}",
        "topics.partitions": f"file {file}",
    }


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGSTREAM_TOPICS__PARTITIONS", "5")
    settings, origins = load()
    assert settings.topics.partitions == 5
    assert origins["topics.partitions"] == "environment"


def test_tables_can_be_given_in_the_environment() -> None:
    settings, _ = load(
        None, {"SEGSTREAM_BROKER__PROPERTIES": '{"security.protocol" = "ssl", "a.b" = "c"}'}
    )
    assert settings.broker.properties == {"security.protocol": "ssl", "a.b": "c"}


def test_properties_with_dots_come_from_a_file_and_are_not_sections(tmp_path: Path) -> None:
    file = written(tmp_path, '[broker.properties]\n"sasl.username" = "me"\n')
    settings, origins = load(file, EMPTY)
    assert settings.broker.properties == {"sasl.username": "me"}
    assert origins == {"broker.properties": f"file {file}"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("10s", 10.0), ("2m", 120.0), ("6h", 21_600.0), ("30d", 2_592_000.0),
     ("1w", 604_800.0), ("5", 5.0), ("0", 0.0)],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(text: str, seconds: float) -> None:
    settings, _ = load(None, {"SEGSTREAM_WORKER__LATE_SECONDS": text})
    assert settings.worker.late_seconds == seconds


@pytest.mark.parametrize(
    "key", ["worker.sweep_seconds", "publisher.lease_seconds", "store.timeout_seconds"]
)
def test_a_time_that_must_pass_cannot_be_nothing(key: str) -> None:
    section, name = key.split(".")
    assert complaint(flags={section: {name: "0s"}}).startswith(f"{key} = 0.0 (from flag): ")


@pytest.mark.parametrize(
    "url",
    ["redis://shop.example:6380/2", "rediss://me:secret@shop.example/0", "unix:///run/redis.sock",
     "redis://[::1]:6379", "redis://shop.example:6379/?protocol=3"],
)  # fmt: skip
def test_addresses_of_stores(url: str) -> None:
    assert load(None, EMPTY, {"store": {"url": url}})[0].store.url == url


@pytest.mark.parametrize(
    "url",
    ["localhost:6379", "localhost", "", "http://nowhere", "redis://shop.example:port/0",
     "redis://shop.example:99999", "redis://[::1", "redis://shop.example/zero"],
)  # fmt: skip
def test_what_is_no_address_of_a_store_is_refused(url: str) -> None:
    said = complaint(flags={"store": {"url": url}})
    assert said.startswith(f"store.url = {url!r} (from flag): expected redis://host:port/number")


@pytest.mark.parametrize(
    "sentinel",
    [
        "redis://h:26379",
        "redis://h:x/shop",
        "http://h/shop",
        "redis://,h/shop",
        "redis:///shop",
        "h:1/shop",
    ],
)
def test_what_is_no_address_of_sentinels_is_refused(sentinel: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.sentinel.*expected redis://host:26379"):
        load(environment={"SEGSTREAM_STORE__SENTINEL": sentinel})


def test_an_address_of_sentinels_has_parts() -> None:
    told = sentinel_address("rediss://watch:b%40@h1:1,h2,[::1]:5/shop")
    assert told.hosts == (("h1", 1), ("h2", 26_379), ("::1", 5))
    assert told[1:] == ("shop", "watch", "b@", True)


@pytest.mark.parametrize("properties", [{}, {"sasl.mechanism": "PLAIN"}])
def test_tokens_that_nobody_asks_for_are_a_wrong_setting(properties: dict[str, str]) -> None:
    given = {"oauth_provider": "shop:token", "properties": json.dumps(properties)}
    environment = {f"SEGSTREAM_BROKER__{key.upper()}": value for key, value in given.items()}
    with pytest.raises(ConfigError, match="nobody asks for its tokens"):
        load(environment=environment)


def test_a_password_in_an_address_is_not_shown() -> None:
    said = complaint(flags={"store": {"url": "redis://me:secret@shop.example:port/0"}})
    assert "secret" not in said
    assert "redis://me:***@shop.example:port/0" in said


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("0", False)])
def test_the_text_false_is_not_true(text: str, value: bool) -> None:
    settings, _ = load(None, {"SEGSTREAM_STORE__ACCEPT_LOSS": text})
    assert settings.store.accept_loss is value


def test_features_and_kinds_can_be_declared(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [[features]]
        name = "orders"
        aggregate = "count"
        on = ["Order Completed"]
        half_life = "30d"
        [[kinds]]
        kind = "at_risk"
        when = { orders = { max = 0.5 } }
        """,
    )
    settings, origins = load(file, EMPTY)
    assert [feature.name for feature in settings.features] == ["orders"]
    assert settings.features[0].half_life == 30 * 86_400
    assert settings.kinds[0].when["orders"].hold(0.4)
    assert origins["features"] == f"file {file}"


# -- complaints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("topics", "partitions", "many", "valid integer"),
        ("topics", "partitions", "0", "greater than or equal to 1"),
        ("topics", "partitions", "1.5", "valid integer"),
        ("store", "timeout_seconds", "soon", "expected a duration such as 250ms, 10s, 6h or 30d"),
        ("store", "timeout_seconds", "-1s", "expected a duration"),
        ("store", "namespace", "a:b", "match pattern"),
        ("store", "accept_loss", "maybe", "valid boolean"),
        ("clock", "mode", "wall", "'live' or 'watermark'"),
        ("broker", "group_protocol", "eager", "'auto', 'consumer' or 'classic'"),
        ("worker", "reject_ratio_limit", "1.5", "less than or equal to 1"),
        ("worker", "reject_ratio_limit", "0", "greater than 0"),
        ("metrics", "port", "70000", "less than or equal to 65535"),
        ("learning", "segments", "1", "greater than or equal to 2"),
    ],
)
def test_a_wrong_value_names_key_value_expectation_and_origin(
    section: str, key: str, value: str, expected: str
) -> None:
    said = complaint(environment={f"SEGSTREAM_{section}__{key}".upper(): value})
    assert said.startswith(f"{section}.{key} = {value!r} (from environment): ")
    assert expected in said
    flagged = complaint(flags={section: {key: value}})
    assert flagged.startswith(f"{section}.{key} = {value!r} (from flag): ")


def test_the_origin_of_a_wrong_value_is_the_layer_that_won(tmp_path: Path) -> None:
    file = written(tmp_path, "[topics]\npartitions = -3\n")
    assert f"topics.partitions = -3 (from file {file}): " in complaint(file)
    assert load(file, {"SEGSTREAM_TOPICS__PARTITIONS": "3"})[0].topics.partitions == 3


def test_all_wrong_values_are_told_at_once() -> None:
    said = complaint(
        environment={"SEGSTREAM_TOPICS__PARTITIONS": "x", "SEGSTREAM_METRICS__PORT": "y"}
    )
    assert [line.split(" = ")[0] for line in said.splitlines()] == [
        "topics.partitions",
        "metrics.port",
    ]


@pytest.mark.parametrize("key", ["topics.partition", "topic.partitions", "nonsense.at.all"])
def test_an_unknown_key_is_told(key: str) -> None:
    said = complaint(environment={f"SEGSTREAM_{key.replace('.', '__').upper()}": "3"})
    assert said.endswith("(from environment): there is no such setting")
    assert key.startswith(said.split(" ", maxsplit=1)[0])


def test_a_value_where_a_section_should_be_is_told() -> None:
    said = complaint(flags={"store": 3})
    assert said.startswith("store = 3 (from flag): ")
    both = complaint(environment={"SEGSTREAM_STORE__URL": "redis://x"}, flags={"store": 3})
    assert "store" in both


def test_a_section_below_a_value_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, "store = 3\n")
    said = complaint(file, {"SEGSTREAM_STORE__URL": "redis://x"})
    assert said == "store.url: store is a value, not a section"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[topics\n", "cannot be read"), ("partitions = ", "cannot be read")],
)
def test_a_file_that_is_no_toml_is_told(tmp_path: Path, text: str, reason: str) -> None:
    file = written(tmp_path, text)
    assert complaint(file).startswith(f"settings file {file} {reason}: ")


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.toml"
    assert complaint(missing) == f"settings file {missing} does not exist"
    assert "cannot be read" in complaint(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "cannot be read" in complaint(binary)


_ORDERS = {"name": "orders", "aggregate": "count", "half_life": "1d"}
_VIEWS = {"name": "views", "aggregate": "count", "half_life": "1d"}
_RATE = {"name": "rate", "aggregate": "ratio", "numerator": "orders", "denominator": "views"}


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ([_ORDERS, _ORDERS], "the name 'orders' is used twice"),
        ([_ORDERS, _RATE], "'rate' is a ratio with 'views', which is no feature declared before"),
        ([_ORDERS, _RATE, _VIEWS], "'rate' is a ratio with 'views', which is no feature declared"),
        ([{**_ORDERS, "window": "1d"}], "give half_life or window, not both"),
        ([{**_ORDERS, "aggregate": "median"}], "'count', 'sum', 'mean'"),
        ([{**_ORDERS, "half_life": "soon"}], "expected a duration"),
        ([{**_ORDERS, "half_life": 0}], "greater than 0"),
        ([{**_ORDERS, "name": "Orders!"}], "match pattern"),
        ([{**_ORDERS, "colour": "red"}], "there is no such setting"),
        ([], "at least 1 item"),
    ],
)
def test_a_wrong_feature_table_is_told(features: list[Any], words: str) -> None:
    said = complaint(flags={"features": features, "kinds": []})
    assert words in said
    assert "features" in said


def test_a_kind_that_looks_at_no_feature_is_told() -> None:
    rule = {"kind": "rich", "when": {"wealth": {"min": 1}}}
    assert "'rich' looks at 'wealth', which is no feature" in complaint(flags={"kinds": [rule]})
    empty = {"kind": "rich", "when": {"orders_30d": {}}}
    assert "give min, max" in complaint(flags={"kinds": [empty]})


def test_a_kind_that_looks_at_the_outlook_needs_what_that_is_read_from() -> None:
    features = [{"name": "days_since_seen", "aggregate": "last"}]
    rule = {"kind": "rich", "when": {"outlook": {"min": 0.5}}}
    told = complaint(flags={"features": features, "kinds": [rule]})
    assert "'rich' looks at 'outlook', which needs the features" in told
    named = [*features, {"name": "outlook", "aggregate": "first"}]
    assert "'outlook' has a meaning in kinds" in complaint(flags={"features": named, "kinds": []})


def test_limits_of_a_word_look_at_features() -> None:
    one = {
        "name": "days_since_seen", "aggregate": "last", "words": ["recent", "silent"],
        "limits": [{"wealth": {"min": 1}}, {}],
    }  # fmt: skip
    told = complaint(flags={"features": [one], "kinds": []})
    assert "limits of 'days_since_seen' look at 'wealth', which is no feature" in told


# -- what is in force ----------------------------------------------------------------------------


def test_every_setting_is_shown_with_value_unit_origin_and_meaning(tmp_path: Path) -> None:
    file = written(tmp_path, "[topics]\npartitions = 3\n[[kinds]]\nkind = 'x'\n"
                             "when = { orders_30d = { min = 1 } }\n")  # fmt: skip
    settings, origins = load(
        file, {"SEGSTREAM_WORKER__SWEEP_SECONDS": "1m"}, {"clock": {"mode": "watermark"}}
    )
    rows = {row["key"]: row for row in effective(settings, origins)}
    assert rows["topics.partitions"]["value"] == 3
    assert rows["topics.partitions"]["origin"] == f"file {file}"
    assert rows["topics.partitions"]["unit"] == "partitions"
    assert rows["worker.sweep_seconds"]["value"] == 60.0
    assert rows["worker.sweep_seconds"]["unit"] == "seconds"
    assert rows["worker.sweep_seconds"]["origin"] == "environment"
    assert rows["clock.mode"]["origin"] == "flag"
    assert rows["store.url"]["origin"] == "default"
    assert rows["kinds"]["origin"] == f"file {file}"
    assert rows["features"]["origin"] == "default"
    keys = [
        f"{name}.{key}"
        for name, section in settings
        if isinstance(section, BaseModel)
        for key in type(section).model_fields
    ]
    assert sorted(rows) == sorted(
        [*keys, "features", "kinds", "populations", "levels", "scores", "campaigns", "endpoints"]
    )
    assert all(row["meaning"] for row in rows.values())
    assert all(row["unit"] == "seconds" for key, row in rows.items() if key.endswith("_seconds"))


def test_passwords_are_not_shown() -> None:
    secret = "hunter2"  # noqa: S105 - nobody's
    given: dict[str, dict[str, Any]] = {
        "store": {"url": f"redis://shop:{secret}@redis:6379/0"},
        "broker": {"properties": {"sasl.password": secret, "ssl.key.password": secret, "a": "b"}},
    }
    settings, origins = load(flags=given, environment={})
    rows = {row["key"]: row["value"] for row in effective(settings, origins)}
    assert secret not in str(rows)
    assert rows["store.url"] == "redis://shop:***@redis:6379/0"
    assert rows["broker.properties"] == {
        "sasl.password": "***", "ssl.key.password": "***", "a": "b",
    }  # fmt: skip
    assert settings.store.url == given["store"]["url"]


@pytest.mark.parametrize("text", ['{"sasl.password" = "x"}', '{"sasl.password": "x"}'])
def test_a_password_from_the_environment_leaves_the_rest_of_a_table_alone(
    tmp_path: Path, text: str
) -> None:
    file = written(tmp_path, '[broker]\nproperties = { "security.protocol" = "SASL_SSL" }\n')
    settings, _ = load(file, {"SEGSTREAM_BROKER__PROPERTIES": text})
    assert settings.broker.properties == {"security.protocol": "SASL_SSL", "sasl.password": "x"}


def test_an_underscore_too_few_is_told() -> None:
    with pytest.raises(ConfigError, match="but SEGSTREAM_LEARNING__SEGMENTS"):
        load(environment={"SEGSTREAM_LEARNING_SEGMENTS": "5"})
    # What Kubernetes sets for services called segstream and segstream-metrics.
    others = {
        "SEGSTREAM_PORT": "tcp://10.0.0.1:80",
        "SEGSTREAM_METRICS_PORT": "tcp://10.0.0.1:9100",
    }
    assert load(environment=others)[0] == Settings()


def test_tables_are_shown_as_they_may_be_written() -> None:
    settings, origins = load(environment={})
    rows = {row["key"]: row["value"] for row in effective(settings, origins)}
    for key in ("kinds", "features"):
        text = f"{key} = [" + ", ".join(map(as_toml, rows[key])) + "]"
        assert getattr(Settings.model_validate(tomllib.loads(text)), key) == getattr(settings, key)


def test_a_key_with_a_dot_stays_one_key() -> None:
    properties = {"sasl.username": "shop", "plain": "1"}
    assert tomllib.loads(f"value = {as_toml(properties)}")["value"] == properties


def test_settings_cannot_be_changed_after_the_start() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.topics.partitions = 3


def test_input_topics_and_dead_letters_have_their_names() -> None:
    topics = Settings().topics
    assert topics.inputs == ("clickstream", "purchases")
    assert topics.dlq("clickstream") == "clickstream.dlq"


def test_settings_as_a_file_are_the_same_settings(tmp_path: Path) -> None:
    usual = Settings()
    for settings in (
        usual,
        Settings(features=usual.features[:-1], kinds=usual.kinds[1:]),
        Settings.model_validate(
            {
                "features": [f.model_dump() | {"weight": 0.5} for f in usual.features],
                "broker": {"properties": {"socket.timeout.ms": "5000"}, "group": 'a "b"'},
                "clock": {"mode": "watermark", "mark_seconds": 86_400},
            }
        ),
    ):
        file = tmp_path / "shop.toml"
        file.write_text(as_file(settings))
        assert load(file, environment={})[0] == settings


# -- values in files -----------------------------------------------------------------------------


def in_file(folder: Path, text: str) -> str:
    file = folder / "value"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_value_can_stand_in_a_file(tmp_path: Path, end: str) -> None:
    url = "redis://shop:pa ss\n@redis:6379/0"
    environment = {"SEGSTREAM_STORE__URL_FILE": in_file(tmp_path, url + end)}
    settings, origins = load(None, environment)
    assert settings.store.url == url
    assert origins["store.url"] == "environment"


@pytest.mark.parametrize("key", ["[x]", "{", "007", "k" * 40])
def test_a_text_in_a_file_stays_text(tmp_path: Path, key: str) -> None:
    settings, _ = load(None, {"SEGSTREAM_STORE__NAMESPACE_KEY_FILE": in_file(tmp_path, key)})
    assert settings.store.namespace_key == key


def test_any_setting_can_stand_in_a_file(tmp_path: Path) -> None:
    environment = {"SEGSTREAM_TOPICS__PARTITIONS_FILE": in_file(tmp_path, "7\n")}
    assert load(None, environment)[0].topics.partitions == 7
    wrong = {"SEGSTREAM_TOPICS__PARTITIONS_FILE": in_file(tmp_path, "many\n")}
    assert complaint(environment=wrong).startswith("topics.partitions = 'many' (from environment)")


@pytest.mark.parametrize(
    "text",
    [
        '{"sasl.password": "1_000", "socket.timeout.ms": "5000", "enable.x": "true"}',
        '{"sasl.password" = "1_000", "socket.timeout.ms" = "5000", "enable.x" = "true"}',
        "# mounted\nsasl.password=1_000\n! and\n\nsocket.timeout.ms = 5000\nenable.x =true\n",
        'sasl.password = "1_000"\nsocket.timeout.ms = 5000\nenable.x = true\n',
        '"sasl.password" = "1_000"\n[socket.timeout]\nms = 5000\n[enable]\nx = true\n',
    ],
)
def test_properties_in_a_file(tmp_path: Path, text: str) -> None:
    settings, _ = load(None, {"SEGSTREAM_BROKER__PROPERTIES_FILE": in_file(tmp_path, text)})
    assert settings.broker.properties == {
        "sasl.password": "1_000", "socket.timeout.ms": "5000", "enable.x": "true",
    }  # fmt: skip


def test_a_key_over_several_lines_in_a_file_of_properties(tmp_path: Path) -> None:
    text = 'ssl.key.pem = """\n-----BEGIN\nabc=\n-----END\n"""\n'
    settings, _ = load(None, {"SEGSTREAM_BROKER__PROPERTIES_FILE": in_file(tmp_path, text)})
    assert settings.broker.properties == {"ssl.key.pem": "-----BEGIN\nabc=\n-----END\n"}


@pytest.mark.parametrize("value", ["'x", '"x', "[x", "a=b=c", "a # b"])
def test_a_property_is_taken_as_it_stands(tmp_path: Path, value: str) -> None:
    text = f"sasl.password={value}\n"
    settings, _ = load(None, {"SEGSTREAM_BROKER__PROPERTIES_FILE": in_file(tmp_path, text)})
    assert settings.broker.properties == {"sasl.password": value}


def test_properties_from_a_file_join_what_the_settings_say(tmp_path: Path) -> None:
    file = written(tmp_path, '[broker]\nproperties = { "security.protocol" = "SASL_SSL" }\n')
    environment = {"SEGSTREAM_BROKER__PROPERTIES_FILE": in_file(tmp_path, "sasl.password=x")}
    settings, _ = load(file, environment)
    assert settings.broker.properties == {"security.protocol": "SASL_SSL", "sasl.password": "x"}


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    name = "SEGSTREAM_STORE__URL_FILE"
    missing = complaint(environment={name: str(tmp_path / "nothing")})
    assert missing.startswith(f"store.url (from environment): {name} = {tmp_path}/nothing cannot")
    assert "No such file" in missing
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert "it is no text" in complaint(environment={name: str(binary)})
    assert "store.url" in complaint(environment={name: str(tmp_path)})


def test_a_value_and_a_file_with_it_are_one_too_many(tmp_path: Path) -> None:
    environment = {
        "SEGSTREAM_STORE__URL": "redis://x",
        "SEGSTREAM_STORE__URL_FILE": in_file(tmp_path, "redis://y"),
    }
    said = complaint(environment=environment)
    assert said == (
        "store.url (from environment): give SEGSTREAM_STORE__URL or SEGSTREAM_STORE__URL_FILE, "
        "not both"
    )


def test_a_file_for_no_setting_is_told(tmp_path: Path) -> None:
    said = complaint(environment={"SEGSTREAM_STORE__PASSWORD_FILE": in_file(tmp_path, "hunter2")})
    assert said == "store.password (from environment): there is no such setting"


# -- complaints without secrets ------------------------------------------------------------------

SECRET = "hunter2 and 3"  # noqa: S105 - nobody's


@pytest.mark.parametrize(
    "environment",
    [
        {"SEGSTREAM_STORE__URL": f"redis://shop:{SECRET}@redis:port/0"},
        {"SEGSTREAM_STORE__URL": f"redis://shop:{SECRET}/x@y@redis"},
        {"SEGSTREAM_STORE__URL": f"http://redis/0?password={SECRET}"},
        {"SEGSTREAM_BROKER__PROPERTIES": f'{{"sasl.password": "{SECRET}"'},
        {"SEGSTREAM_BROKER__PROPERTIES": SECRET},
        {"SEGSTREAM_BROKER__PROPERTIES": f'{{"sasl.password": ["{SECRET}"]}}'},
        {"SEGSTREAM_BROKER__PROPERTIES": f'{{"sasl": {{"password": "{SECRET}"}}}}'},
        {"SEGSTREAM_STORE__PASSWORD": SECRET},
        {"SEGSTREAM_BROKER__PROPERTIES__SASL.PASSWORD": SECRET},
    ],
)
def test_a_complaint_has_no_secret_in_it(environment: dict[str, str]) -> None:
    environment = environment | {"SEGSTREAM_TOPICS__PARTITIONS": "none"}
    said = complaint(environment=environment)
    assert "hunter2" not in said
    assert "and 3" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ({"purchases": "clickstream"}, "topics.clickstream and topics.purchases"),
        ({"changes": "purchases"}, "topics.purchases and topics.changes"),
        ({"changes": "clickstream"}, "topics.clickstream and topics.changes"),
        ({"models": "clickstream"}, "topics.clickstream and topics.models"),
        ({"models": "segment-changes"}, "topics.changes and topics.models"),
        ({"purchases": "clickstream.dlq"}, "the dead letters of topics.clickstream"),
        ({"changes": "purchases.dlq"}, "the dead letters of topics.purchases"),
        ({"dlq_suffix": ""}, "the dead letters of topics.clickstream"),
    ],
)
def test_one_topic_for_two_uses_is_a_configuration_error(topics: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(environment={}, flags={"topics": topics})


def test_topics_that_are_apart_may_be_called_anything() -> None:
    load(environment={}, flags={"topics": {"clickstream": "b", "purchases": "a", "changes": "c"}})


@pytest.mark.parametrize("partitioner", ["consistent_random", "random", "fnv1a", ""])
def test_a_partitioner_that_puts_users_elsewhere_is_refused(partitioner: str) -> None:
    properties = {"partitioner": partitioner}
    with pytest.raises(ConfigError, match="expected murmur2_random"):
        load(environment={}, flags={"broker": {"properties": properties}})


def test_kafkas_own_partitioner_may_be_named() -> None:
    for name in ("murmur2", "murmur2_random"):
        settings, _ = load(environment={}, flags={"broker": {"properties": {"partitioner": name}}})
        assert settings.broker.properties == {"partitioner": name}


def test_a_shop_with_reviews_has_their_features_behind_the_others() -> None:
    for flag in (True, "true"):
        settings, _ = load(None, EMPTY, {"reviews": {"enabled": flag}})
        names = [feature.name for feature in settings.features]
        assert names == [*(f.name for f in DEFAULT_FEATURES), "reviews_180d", "sentiment_90d"]
    own = [{"name": "sentiment_90d", "aggregate": "count"}]
    settings, _ = load(None, EMPTY, {"reviews": {"enabled": True}, "features": own, "kinds": []})
    assert [feature.name for feature in settings.features] == ["sentiment_90d", "reviews_180d"]
    again = tomllib.loads(as_file(settings))
    assert load(None, EMPTY, again)[0] == settings
    assert load(None, EMPTY, {"reviews": {"enabled": False}})[0] == Settings()


def test_a_wrong_word_about_reviews_is_told_by_its_key() -> None:
    said = complaint(flags={"reviews": {"enabled": "perhaps"}})
    assert said.startswith("reviews.enabled = 'perhaps' (from flag): ")
    said = complaint(flags={"reviews": {"worst_rating": 5}})
    assert "worst_rating is not below best_rating" in said


FORETOLD = {"name": "soon", "of": "buy", "days": 7}
ODD = {"name": "odd", "of": "unusual"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"scores": [ODD | {"days": 7}]}, "odd: unusual has no days"),
        ({"scores": [FORETOLD | {"days": None}]}, "soon: give days"),
        ({"scores": [ODD, ODD | {"name": "strange"}]}, "'strange' is unusual, as 'odd' is"),
        ({"scoring": {"habits": ["views_9d"]}}, "scoring.habits: 'views_9d' is no feature"),
        ({"scores": [ODD], "scoring": {"habits": []}}, "'odd' needs scoring.habits"),
    ],
)
def test_what_unusual_needs_is_said(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Settings.model_validate(data)


def test_unusual_needs_no_orders_and_goes_where_there_is_nothing_to_be_unusual_in() -> None:
    views = {"name": "views_7d", "aggregate": "count", "half_life": "7d"}
    seen = {"name": "days_since_seen", "aggregate": "last"}
    named = [
        [score.name for score in Settings.model_validate({"features": some, "kinds": []}).scores]
        for some in ([views], [seen])
    ]
    assert named == [["unusual"], []]
    wanted = Settings.model_validate({"features": [views], "kinds": []}).foretold()
    assert wanted.unusual == "unusual"
    assert wanted.habits == ("views_7d",)
    assert not wanted.readable(("views_7d",)), "nothing is foretold"
