"""A file arrives on the topics in order, with marks between, and nothing is lost unnoticed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console

from consumers.client import read_to_end
from consumers.log_end import read_ends, read_log_end
from consumers.native import NativeReader
from producers.delivery import DeliveryError
from producers.files import Source
from producers.mapping import load_mapping, parse_mapping
from producers.mapping_help import EXAMPLE_VIEWS
from producers.replay import (
    BehindError,
    Clock,
    InputWriter,
    Progress,
    ReplayReport,
    parse_speed,
    progress_bar,
    replay,
)
from producers.texts import FileError
from producers.topics import apply
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError, TopicMissingError
from stream.events import Mark
from stream.features import FeatureTable
from stream.log_end import LogEnd
from stream.units import iso
from tests.fakes import SIGNER

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Producer

    from stream.marks import MarkSigner
    from tests.conftest import BrokerServer, SettingsFor

HOUR = 3_600_000
NOW = datetime(2026, 3, 10, tzinfo=UTC).timestamp()
"""By the wall clock, when a replay begins."""
SHOPS = Path(os.environ.get("SEGSTREAM_SHOPS", Path(__file__).parents[3] / "shared" / "data"))
LIVE = Settings.model_validate({"broker": {"bootstrap": "nowhere:1"}})
WATERMARK = Settings.model_validate(
    {"broker": {"bootstrap": "nowhere:1"}, "clock": {"mode": "watermark"}}
)

CSV = """\
customer,date,amount
ann,2026-03-01T10:30:00Z,20
bob,2026-03-01T10:10:00Z,10
,2026-03-01T10:20:00Z,10
ann,2026-03-01T13:00:00Z,-5
cat,soon,5
"""


class Recorder:
    """A producer that keeps what it is given; `topics` says how many partitions there are."""

    def __init__(self, **topics: int) -> None:
        self.topics = topics or {"clickstream": 2, "purchases": 2}
        self.records: list[SimpleNamespace] = []
        self.full = 0
        self.fail_at = -1
        self.report: Callable[..., None] = lambda *_: None
        self.pending = 0

    def make(self, options: dict[str, Any]) -> Producer:
        self.report = options["on_delivery"]
        assert options["enable.idempotence"]
        return cast("Producer", self)

    def list_topics(self, **_: Any) -> Any:
        return SimpleNamespace(
            topics={
                name: SimpleNamespace(partitions=dict.fromkeys(range(count)))
                for name, count in self.topics.items()
            }
        )

    def produce(self, topic: str, **record: Any) -> None:
        if self.full:
            self.full -= 1
            raise BufferError
        self.records.append(SimpleNamespace(topic=topic, **record))

    def poll(self, _: float) -> int:
        if 0 <= self.fail_at <= len(self.records):
            self.report(KafkaError(KafkaError._MSG_TIMED_OUT), SimpleNamespace(topic=lambda: "t"))
        return 0

    def flush(self, _: float) -> int:
        self.poll(0)
        return 0

    def purge(self) -> None:
        pass

    def story(self) -> list[str]:
        """Events by user, marks by hour, in order, each mark once."""
        told: list[str] = []
        for record in self.records:
            value = json.loads(record.value)
            if value["type"] == "track":
                told.append(value["userId"])
            elif record.topic == "clickstream" and record.partition == 0:
                told.append(value["timestamp"][11:16])
        return told


class Hand:
    """A clock wound by hand: sleeping is what moves it."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.at, self.sleep, lambda: NOW + self.at)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text(CSV)
    return path


def run(
    file: Path,
    recorder: Recorder,
    settings: Settings = WATERMARK,
    signer: MarkSigner | None = SIGNER,
    **options: Any,
) -> Any:
    return replay(
        settings, file, load_mapping("simple"), signer, make_producer=recorder.make, **options
    )


# -- order and marks ---------------------------------------------------------------------------


def test_marks_stand_exactly_between_the_events(file: Path) -> None:
    recorder = Recorder()
    report = run(file, recorder, clock=Hand().clock)
    # 13:00 itself comes after the mark of 13:00; the last mark is the first one after it.
    assert recorder.story() == ["10:00", "bob", "ann", "11:00", "12:00", "13:00", "ann", "14:00"]
    assert report.marks == 5
    marks = [r for r in recorder.records if r.key is None]
    assert len(marks) == 5 * 2 * 2
    for topic in ("clickstream", "purchases"):
        for partition in range(2):
            mine = [r for r in marks if (r.topic, r.partition) == (topic, partition)]
            assert [iso(r.timestamp)[11:13] for r in mine] == ["10", "11", "12", "13", "14"]
    first = json.loads(marks[0].value)
    signature = first.pop("signature")
    assert first == {
        "type": "segstream-mark",
        "timestamp": "2026-03-01T10:00:00.000Z",
        "sentAt": "2026-03-10T00:00:00.000Z",
    }
    assert len(signature) == 64


def test_marks_are_signed_for_their_partition(file: Path) -> None:
    recorder = Recorder()
    run(file, recorder, clock=Hand().clock)
    for record in recorder.records:
        if record.key is None:
            mark = msgspec.json.decode(record.value, type=Mark)
            for topic in ("clickstream", "purchases"):
                for partition in range(2):
                    here = (topic, partition) == (record.topic, record.partition)
                    assert SIGNER.is_genuine(mark, topic, partition) == here


def test_nothing_is_sent_that_has_not_happened_yet(tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(CSV + "eve,2026-03-10T00:05:01Z,1\neve,2090-01-01T00:00:00Z,1\n")
    recorder = Recorder()
    report = run(file, recorder, clock=Hand().clock, until=datetime(2099, 1, 1, tzinfo=UTC))
    assert report.sent == 3
    assert report.refused["bad_time"] == 3
    ahead = [one.why for one in report.examples["bad_time"] if "has not come yet" in one.why]
    assert [why[:12] for why in ahead] == ["date = '2026", "date = '2090"]
    assert recorder.story()[-1] == "00:00", "marks end with the present"
    assert iso(recorder.records[-1].timestamp) == "2026-03-10T00:00:00.000Z"


def test_records_carry_user_and_event_time(file: Path) -> None:
    recorder = Recorder()
    run(file, recorder)
    first, second, third = [r for r in recorder.records if r.key is not None]
    assert (first.topic, first.key, first.partition) == ("purchases", b"bob", -1)
    assert (
        iso(first.timestamp) == json.loads(first.value)["timestamp"] == "2026-03-01T10:10:00.000Z"
    )
    assert json.loads(second.value)["messageId"] == "orders-1-1772361000000"
    assert json.loads(third.value)["event"] == "Order Refunded"


def test_live_clock_and_a_wish_write_no_marks(file: Path) -> None:
    for settings, signer in ((LIVE, SIGNER), (WATERMARK, None)):
        recorder = Recorder()
        assert run(file, recorder, settings, signer).marks == 0
        assert recorder.story() == ["bob", "ann", "ann"]


def test_until_ends_the_clock_early_or_lets_silence_go_on(file: Path) -> None:
    recorder = Recorder()
    report = run(file, recorder, until=datetime(2026, 3, 1, 16, tzinfo=UTC))
    assert recorder.story()[-4:] == ["ann", "14:00", "15:00", "16:00"]
    assert report.unsent == 0

    recorder = Recorder()
    report = run(file, recorder, until=datetime(2026, 3, 1, 13))  # noqa: DTZ001 - UTC if it says nothing
    assert recorder.story() == ["10:00", "bob", "ann", "11:00", "12:00", "13:00"]
    assert (report.sent, report.unsent) == (2, 1)


def test_limit(file: Path) -> None:
    recorder = Recorder()
    report = run(file, recorder, limit=1)
    assert recorder.story() == ["10:00", "bob"], "a mark would make the rest of the hour late"
    assert (report.sent, report.unsent) == (1, 2)


# -- several files, and what is in the topics already ------------------------------------------


def test_files_are_merged_by_time(file: Path, tmp_path: Path) -> None:
    clicks = tmp_path / "clicks.csv"
    clicks.write_text(
        "visitor,seen_at,action,department\n"
        "dan,01.03.2026 11:20,look,shoes\neve,01.03.2026 11:25,basket,\n"
    )
    views = parse_mapping(EXAMPLE_VIEWS, "views", "views.toml")
    recorder = Recorder()
    report = run(file, recorder, clock=Hand().clock, more=[Source(clicks, views)])
    assert recorder.story() == [
        "10:00", "bob", "dan", "eve", "ann", "11:00", "12:00", "13:00", "ann", "14:00",
    ]  # fmt: skip
    assert (report.rows, report.sent) == (7, 5)
    sent = [json.loads(r.value)["messageId"] for r in recorder.records if r.key is not None]
    assert [one.rpartition("-")[0] for one in sent] == [
        "orders-2", "clicks-1", "clicks-2", "orders-1", "orders-4",
    ]  # fmt: skip
    assert [r.topic for r in recorder.records if r.key in (b"dan", b"bob")] == [
        "purchases", "clickstream",
    ]  # fmt: skip


def test_events_that_no_feature_watches_are_told_before_anything_is_sent(file: Path) -> None:
    recorder, told = Recorder(), []
    report = run(
        file, recorder, watched={"Order Completed"},
        tell=lambda note: told.append((note, len(recorder.records))),
    )  # fmt: skip
    assert told == [("no feature watches 1 'Order Refunded'", 0)]
    assert report.notes == ["no feature watches 1 'Order Refunded'"]
    assert "note: no feature watches" in "\n".join(report.lines())
    recorder = Recorder()
    with pytest.raises(FileError, match=r"2 'Order Completed'.*watched are Product Viewed"):
        run(file, recorder, watched={"Product Viewed"})
    assert not recorder.records


@pytest.mark.parametrize("hour", [12, 14])
def test_a_file_behind_the_clock_is_told_before_anything_is_sent(file: Path, hour: int) -> None:
    mark_ms = int(datetime(2026, 3, 1, hour, tzinfo=UTC).timestamp()) * 1_000
    recorder = Recorder()
    with pytest.raises(BehindError) as caught:
        run(file, recorder, log_end=lambda: LogEnd(mark_ms, mark_ms, {}))
    assert not recorder.records
    why = str(caught.value)
    assert f"at {iso(mark_ms)}: {2 if hour == 12 else 3} of 3 events are before it" in why
    assert ("--resume sends the 1 events" if hour == 12 else "nothing is left to send") in why
    assert "--anyway" in why
    report = run(file, recorder, log_end=lambda: LogEnd(mark_ms, mark_ms, {}), behind="resume")
    assert (report.known, report.sent) == ((2, 1) if hour == 12 else (3, 0))
    assert report.unsent == 0


def test_what_is_late_can_be_sent_all_the_same(file: Path) -> None:
    mark_ms = int(datetime(2026, 3, 1, 17, tzinfo=UTC).timestamp()) * 1_000
    recorder = Recorder()
    report = run(
        file, recorder, clock=Hand().clock, log_end=lambda: LogEnd(mark_ms, mark_ms, {}),
        behind="send",
    )  # fmt: skip
    assert report.sent == 3
    # Marks must rise: the one that lets these events count comes after the clock.
    assert recorder.story()[-2:] == ["ann", "18:00"]


def test_a_file_ahead_of_the_clock_is_sent_without_a_word(file: Path) -> None:
    mark_ms = int(datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp()) * 1_000
    recorder = Recorder()
    report = run(file, recorder, log_end=lambda: LogEnd(mark_ms, mark_ms, {"other": mark_ms}))
    assert report.sent == 3


def test_without_marks_what_is_among_the_last_is_told_and_passed_over(file: Path) -> None:
    recorder = Recorder()
    run(file, recorder, LIVE, limit=2)
    ids = {json.loads(one.value)["messageId"]: one.timestamp for one in recorder.records}
    end = LogEnd(0, 0, ids | {"another": 5})
    with pytest.raises(BehindError, match=r"2 of 3 events are among the last"):
        run(file, recorder, LIVE, log_end=lambda: end)
    assert len(recorder.records) == 2
    report = run(file, recorder, LIVE, log_end=lambda: end, behind="resume")
    assert (report.known, report.sent) == (2, 1)


def test_messages_that_are_sent_as_they_are_are_known_by_their_own_ids(tmp_path: Path) -> None:
    file = tmp_path / "tracks.jsonl"
    lines = [
        {"type": "track", "event": "Order Completed", "userId": f"u{n}", "messageId": name,
         "timestamp": f"2026-03-01T10:0{n}:00.000Z", "properties": {"revenue": 5}}
        for n, name in enumerate(["a", "b", None, "c", 7])
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, lines)))
    native = NativeReader(FeatureTable(LIVE.features), LIVE.worker, LIVE.money)
    mark_ms = int(datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp()) * 1_000

    def sent(**options: Any) -> tuple[list[Any], Any]:
        recorder = Recorder()
        report = replay(
            WATERMARK, file, load_mapping("segment"), SIGNER, native=native, clock=Hand().clock,
            make_producer=recorder.make, **options,
        )  # fmt: skip
        return [json.loads(r.value)["messageId"] for r in recorder.records if r.key], report

    end = LogEnd(mark_ms, mark_ms, {"b": mark_ms, "x": mark_ms})
    names, _ = sent()
    assert names == ["a", "b", None, "c", 7]
    names, report = sent(log_end=lambda: end, behind="resume")
    assert names == ["a", None, "c", 7]
    assert report.known == 1


Log = dict[tuple[str, int], list[tuple[str, int]]]
"""Of each partition its records: message id, empty for a mark, and time."""


def logs_of(recorder: Recorder) -> Log:
    found: Log = {(topic, number): [] for topic in recorder.topics for number in range(2)}
    for record in recorder.records:
        partition = record.key[-1] % 2 if record.key else record.partition
        message_id = json.loads(record.value).get("messageId", "")
        found[record.topic, partition].append((message_id, record.timestamp))
    return found


def end_of(logs: Log) -> LogEnd:
    """What `consumers.log_end` would read."""
    last = [max((at for name, at in log if not name), default=0) for log in logs.values()]
    ids: dict[str, int] = {}
    for log in logs.values():
        marks = [place for place, (name, at) in enumerate(log) if not name and at == min(last)]
        start = marks[0] + 1 if marks else 0
        ids |= {name: at for name, at in log[start:] if name}
    return LogEnd(min(last), max(last), ids if max(last) else {})


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(0, 600), st.sampled_from("abcd")), min_size=1, max_size=30),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.booleans(),
)
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
def test_a_replay_that_was_cut_off_anywhere_can_be_resumed(
    tmp_path: Path, rows: list[tuple[int, str]], cuts: list[float], half: bool
) -> None:
    file = tmp_path / "orders.csv"
    lines = [f"{user},2026-03-01T{at // 60:02}:{at % 60:02}:00Z,5" for at, user in rows]
    file.write_text("\n".join(["customer,date,amount", *lines]))
    recorder = Recorder()
    run(file, recorder, clock=Hand().clock, limit=max(1, len(rows) // 2) if half else None)
    # Each partition keeps the order it was given, and may lose its own end when a process is killed.
    logs = logs_of(recorder)
    for place, cut in zip(logs, cuts, strict=True):
        logs[place] = logs[place][: round(len(logs[place]) * cut)]
    end = end_of(logs)

    resumed = Recorder()
    report = run(file, resumed, clock=Hand().clock, log_end=lambda: end, behind="resume")
    for place, more in logs_of(resumed).items():
        logs[place] += more
    found = sorted(name for log in logs.values() for name, _ in log if name)
    start_ms = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1_000
    assert found == sorted(
        f"orders-{row}-{start_ms + at * 60_000}" for row, (at, _) in enumerate(rows, 1)
    )
    assert report.known + report.sent == len(rows)
    for log in logs.values():
        clock = 0
        for name, at in log:
            assert not name or at >= clock, "an event is late"
            clock = clock if name else max(clock, at)


# -- the report --------------------------------------------------------------------------------


def test_every_row_is_accounted_for(file: Path, tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.jsonl"
    told: list[Progress] = []
    report = run(file, Recorder(), rejected_to=rejected, progress=told.append)
    assert report.rows == 5
    assert report.events == {"Order Completed": 2, "Order Refunded": 1}
    assert report.refused == {"no_user": 1, "bad_time": 1}
    assert report.complete
    lines = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in lines] == [(3, "no_user"), (5, "bad_time")]
    assert lines[1]["columns"] == {"customer": "cat", "date": "soon", "amount": "5"}
    assert str(rejected) in "\n".join(report.lines())
    assert json.loads(json.dumps(report.as_dict()))["last_event_at"] == "2026-03-01T13:00:00.000Z"
    assert {t.phase for t in told} >= {"reading"}


def test_the_report_says_how_to_see_what_was_refused(file: Path) -> None:
    text = "\n".join(run(file, Recorder()).lines())
    assert "--rejected FILE" in text
    assert "row 5 of orders.csv: date = 'soon' is no time" in text
    assert "time.format" in text


def test_orders_of_negative_worth_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "retail.csv"
    file.write_text(
        "InvoiceNo,Quantity,InvoiceDate,UnitPrice,CustomerID\n"
        "1,1,2011-01-01 10:00:00,5,a\n1,-2,2011-01-01 10:00:00,5,a\n2,1,2011-01-01 10:00:00,5,a\n"
    )
    report = replay(
        WATERMARK, file, load_mapping("online_retail"), SIGNER, make_producer=Recorder().make
    )
    assert (report.rows, report.mapped, report.sent, report.unsent) == (3, 2, 1, 0)
    assert report.refused == {"bad_number": 1}


def test_a_file_for_refused_rows_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        run(file, Recorder(), rejected_to=tmp_path / "no" / "where.jsonl")


def test_progress_bar_takes_what_replay_tells(file: Path) -> None:
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115, PTH123 - closed below
    with console.file, progress_bar(console) as show:
        run(file, Recorder(), progress=show)
        show(Progress("sending", 1, 3, HOUR))


# -- pace --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "speed"), [("max", "max"), ("60x", 60.0), ("0.5", 0.5), ("1e3x", 1_000.0)]
)
def test_speeds(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["fast", "0x", "-1", "x", "inf", "nan"])
def test_what_is_no_speed(text: str) -> None:
    with pytest.raises(ValueError, match="such as 60x"):
        parse_speed(text)


def test_the_shop_clock_runs_at_the_speed_asked_for(file: Path) -> None:
    hand = Hand()
    recorder = Recorder()
    report = run(file, recorder, speed=3_600.0, clock=hand.clock)
    # 10:10 to 13:00 is 2.83 hours: one second an hour.
    assert report.seconds == pytest.approx(10_200 / 3_600, abs=0.02)
    assert max(hand.slept) <= 0.05
    sent = {
        v["timestamp"][11:16]: v["sentAt"]
        for v in (json.loads(r.value) for r in recorder.records)
        if v["type"] == "segstream-mark"
    }
    assert sent["11:00"] < sent["12:00"] < sent["13:00"]


def test_a_wish_to_stop_leaves_the_clock_where_it_is(file: Path) -> None:
    hand = Hand()
    recorder = Recorder()
    report = run(
        file, recorder, speed=3_600.0, clock=hand.clock, stop=lambda: hand.at > 1.5,
        until=datetime(2026, 3, 9, tzinfo=UTC),
    )  # fmt: skip
    assert recorder.story() == ["10:00", "bob", "ann", "11:00"]
    assert not report.complete
    assert "stopped" in "\n".join(report.lines())


def test_a_wish_to_stop_is_heard_while_reading(file: Path) -> None:
    recorder = Recorder()
    report = run(file, recorder, stop=lambda: True)
    assert not report.complete
    assert not recorder.records


# -- what can go wrong -------------------------------------------------------------------------


def test_a_full_queue_waits(file: Path) -> None:
    recorder = Recorder()
    recorder.full = 5
    assert run(file, recorder).sent == 3


@pytest.mark.parametrize("fail_at", [0, 3])
def test_a_failed_delivery_is_an_error(file: Path, fail_at: int) -> None:
    recorder = Recorder()
    recorder.fail_at = fail_at
    with pytest.raises(DeliveryError, match="a record for t was not delivered"):
        run(file, recorder)


def test_topics_that_do_not_fit() -> None:
    with pytest.raises(TopicMissingError, match=r"purchases.*topics apply"):
        InputWriter(WATERMARK, SIGNER, make_producer=Recorder(clickstream=2).make)
    with pytest.raises(ConfigError, match="2 and 3 partitions"):
        InputWriter(WATERMARK, SIGNER, make_producer=Recorder(clickstream=2, purchases=3).make)


def test_no_broker(file: Path) -> None:
    recorder = Recorder()

    def nobody(**_: Any) -> Any:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    recorder.list_topics = nobody  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailableError, match="nowhere:1"):
        run(file, recorder)


# -- a real shop -------------------------------------------------------------------------------

needs_shops = pytest.mark.skipif(
    not (SHOPS / "online_retail_uk.csv.gz").is_file(),
    reason="needs the data sets: set SEGSTREAM_SHOPS to their folder",
)


@needs_shops
@pytest.mark.slow
def test_online_retail_has_the_orders_that_are_known_of_it() -> None:
    recorder = Recorder()
    report = replay(
        WATERMARK, SHOPS / "online_retail_uk.csv.gz", load_mapping("online_retail"), None,
        make_producer=recorder.make,
    )  # fmt: skip
    assert report.rows == 541_909
    assert report.events == {"Order Completed": 18_536, "Order Refunded": 3_654}
    # Every line with a customer is in an order; the three of book-keeping have none anyway.
    assert report.refused == {"no_user": 135_077, "book_keeping": 3}
    assert len({r.key for r in recorder.records}) == 4_372
    times = [r.timestamp for r in recorder.records]
    assert times == sorted(times)


@pytest.mark.slow
@needs_shops
@pytest.mark.parametrize(
    ("name", "mapping", "events"),
    [
        (
            "taobao_behavior_9days",
            "taobao",
            {"Product Viewed": 75_693, "Product Added": 4_494, "Product Added to Wishlist": 2_351,
             "Order Completed": 1_749},
        ),
        # 214 purchases in 200 sessions: the publisher counts a session's as one order.
        (
            "rees46_multicategory_3h",
            "rees46",
            {"Product Viewed": 17_055, "Product Added": 165, "Order Completed": 200},
        ),
    ],
)  # fmt: skip
def test_clickstreams_have_the_events_that_are_known_of_them(
    name: str, mapping: str, events: dict[str, int]
) -> None:
    report = replay(
        WATERMARK, SHOPS / f"{name}.csv.gz", load_mapping(mapping), None,
        make_producer=Recorder().make,
    )  # fmt: skip
    assert report.events == events
    assert not report.refused


# -- a real broker -----------------------------------------------------------------------------


@pytest.mark.servers
def test_on_a_real_broker_marks_bound_the_events_of_every_partition(
    broker_server: BrokerServer, settings_for: SettingsFor, tmp_path: Path
) -> None:
    rows = [
        f"u{n % 40},2026-03-{1 + n // 200:02}T{n % 24:02}:{n % 60:02}:00Z,{n % 90 + 1}"
        for n in range(2_000)
    ]
    file = tmp_path / "orders.csv"
    file.write_text("\n".join(["customer,date,amount", *rows]))
    settings = settings_for(
        broker_server.bootstrap,
        topics={"input_retention_seconds": 0},
        clock={"mode": "watermark"},
    )
    apply(settings, create=True)
    report = replay(settings, file, load_mapping("simple"), SIGNER)
    assert report.sent == 2_000

    events = 0
    for topic in settings.topics.inputs:
        marks: dict[int, list[int]] = {}
        for message in read_to_end(settings.broker, topic):
            mine = marks.setdefault(message.partition() or 0, [])
            at = message.timestamp()[1]
            value = json.loads(message.value() or b"")
            assert value["timestamp"] == iso(at)
            if value["type"] == "segstream-mark":
                mine.append(at)
            else:
                events += 1
                assert not mine or mine[-1] <= at < mine[-1] + HOUR
        assert len(marks) == settings.topics.partitions
        for mine in marks.values():
            assert len(mine) == report.marks
            assert mine == list(range(mine[0], mine[-1] + 1, HOUR))
    assert events == 2_000


@pytest.mark.servers
def test_a_replay_that_was_stopped_goes_on_where_the_topics_end(
    broker_server: BrokerServer, settings_for: SettingsFor, tmp_path: Path
) -> None:
    rows = [
        f"u{n % 40},2026-03-{1 + n // 200:02}T{n // 9 % 24:02}:{n % 60:02}:00Z,{n % 90 + 1}"
        for n in range(1_500)
    ]
    file = tmp_path / "orders.csv"
    file.write_text("\n".join(["customer,date,amount", *rows]))
    settings = settings_for(
        broker_server.bootstrap,
        topics={"input_retention_seconds": 0},
        clock={"mode": "watermark"},
    )
    apply(settings, create=True)

    def again(**options: Any) -> ReplayReport:
        return replay(
            settings, file, load_mapping("simple"), SIGNER,
            log_end=lambda: read_log_end(settings, SIGNER), **options,
        )  # fmt: skip

    assert read_log_end(settings, SIGNER) == LogEnd(0, 0, {})
    first = again(limit=700)
    assert first.last_event_ms is not None
    end = read_log_end(settings, SIGNER)
    assert end.mark_ms == end.latest_ms == first.last_event_ms // HOUR * HOUR
    assert end.ids
    with pytest.raises(BehindError, match=r"of 1,500 events are before it"):
        again()
    rest = again(behind="resume")
    assert (first.sent, rest.known, rest.sent) == (700, 700, 800)
    nothing = again(behind="resume")
    assert (nothing.known, nothing.sent) == (1_500, 0)

    ids: list[str] = []
    for topic in settings.topics.inputs:
        for message in read_to_end(settings.broker, topic):
            value = json.loads(message.value() or b"")
            ids += [value["messageId"]] if value["type"] == "track" else []
    assert len(ids) == len(set(ids)) == 1_500
    ends = read_ends(settings)
    assert len(ends) == settings.topics.partitions
    assert sum(map(sum, ends)) == 1_500 + (first.marks + rest.marks) * 2 * len(ends)


@pytest.mark.servers
def test_without_marks_a_replay_that_was_stopped_goes_on(
    local_broker: BrokerServer, settings_for: SettingsFor, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    rows = [f"u{n % 7},2026-03-01T{n // 60:02}:{n % 60:02}:00Z,5" for n in range(300)]
    file.write_text("\n".join(["customer,date,amount", *rows]))
    settings = settings_for(local_broker.bootstrap, topics={"input_retention_seconds": 0})
    apply(settings, create=True)

    def again(**options: Any) -> ReplayReport:
        return replay(
            settings, file, load_mapping("simple"), None,
            log_end=lambda: read_log_end(settings, None), **options,
        )  # fmt: skip

    assert again(limit=100).sent == 100
    assert len(read_log_end(settings, None).ids) == 100
    with pytest.raises(BehindError, match=r"100 of 300 events are among the last"):
        again()
    rest = again(behind="resume")
    assert (rest.known, rest.sent) == (100, 200)
    assert sum(map(sum, read_ends(settings))) == 300
