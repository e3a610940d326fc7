"""A truthful world is clean; whatever is broken in it is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.consumers.audit.breaking import (
    announce_on_other_partition,
    announce_stranger,
    bury_record,
    change_an_order,
    change_as_of,
    change_bucket,
    change_click,
    change_first,
    change_last,
    change_letter,
    change_seen,
    change_segment,
    change_since_when,
    change_sum,
    change_tile,
    change_version,
    change_where_from,
    cut_log,
    cut_row,
    delete_everything,
    delete_key,
    delete_partition,
    double_with_other_payload,
    empty_outbox,
    file_good_message,
    file_without_origin,
    first_from_somewhere,
    forget_a_message,
    forget_an_order,
    gap_in_versions,
    invent_user,
    lose_field,
    lose_letter,
    lose_message_in_the_middle,
    make_log_anew,
    miscount,
    miscount_within_the_sum,
    misfile_letter,
    misname_change,
    move_user_to_other_partition,
    other_schema,
    remember_another_message,
    remove_all_of_a_user,
    remove_last_record,
    remove_record,
    swap_records,
    wait_with_other_payload,
    wrong_from,
    wrong_header,
    wrong_key,
)
from tests.consumers.audit.world import (
    ASSIGNED,
    COUNTS,
    FROM,
    LETTERS,
    LOG,
    ONCE,
    PAYLOAD,
    STATE,
    VALID,
    VERSIONS,
    World,
    failed,
    truthful,
)


def test_a_truthful_world_is_clean() -> None:
    report = truthful().audit()
    assert failed(report) == {}
    assert report.ok
    assert (report.lost, report.duplicated, report.rejected) == (0, 0, 4)
    assert (report.users, report.changes, report.pending) == (4, 5, 1)
    assert report.counts == {
        "consumed": 28,
        "applied": 21,
        "duplicate": 1,
        "late": 1,
        "ignored": 1,
        "rejected": 4,
        "clamped": 1,
        "marks": 1,
    }
    assert report.backlog == {"clickstream": 0, "purchases": 0}
    # Without a model there are no populations and no levels to judge by.
    assert [check.name for check in report.checks if not check.counted] == [
        "populations_follow_their_rules",
        "levels_follow_the_log",
    ]


def test_nothing_processed_yet_is_said_and_is_no_fault() -> None:
    world = World()
    world.click(0, "ann", 0)
    report = world.audit()
    assert report.ok
    assert report.backlog["clickstream"] == 1
    assert any("nothing has been processed" in check.note for check in report.checks)


def test_unread_messages_are_a_backlog_and_no_fault() -> None:
    world = truthful()
    world.buy(0, "eve", 200, 10.0)
    world.send("clickstream", 1, b"nonsense")
    report = world.audit()
    assert report.ok
    assert report.backlog == {"clickstream": 1, "purchases": 1}


def test_topics_without_letters_need_not_exist() -> None:
    world = World()
    world.click(0, "ann", 0)
    world.process(0)
    del world.topics["clickstream.dlq"]
    assert world.audit().ok


@pytest.mark.parametrize(
    ("break_it", "checks", "lost", "duplicated"),
    [
        (delete_key, {STATE, ASSIGNED}, 0, 0),
        (delete_partition, {STATE, ASSIGNED}, 0, 0),
        (delete_everything, {STATE, ASSIGNED}, 0, 0),
        (invent_user, {STATE, ASSIGNED}, 1, 0),
        (move_user_to_other_partition, {STATE, ASSIGNED}, 2, 0),
        (change_sum, {STATE}, 0, 0),
        (change_tile, {STATE}, 0, 0),
        (change_last, {STATE}, 0, 0),
        (change_first, {STATE}, 0, 0),
        (change_seen, {STATE}, 0, 0),
        (change_click, {STATE}, 0, 0),
        (change_bucket, {STATE}, 0, 0),
        (change_as_of, {STATE}, 0, 0),
        (forget_a_message, {STATE}, 0, 0),
        (remember_another_message, {STATE}, 0, 0),
        (forget_an_order, {STATE}, 0, 0),
        (change_an_order, {STATE}, 0, 0),
        (cut_row, {STATE, ASSIGNED}, 0, 0),
        (double_with_other_payload, {PAYLOAD, ONCE}, 0, 1),
        (wait_with_other_payload, {PAYLOAD}, 0, 0),
        (remove_record, {VERSIONS}, 1, 0),
        (remove_last_record, {ASSIGNED}, 1, 0),
        (remove_all_of_a_user, {ASSIGNED}, 1, 0),
        (empty_outbox, {ASSIGNED}, 1, 0),
        (swap_records, {VERSIONS}, 0, 0),
        (gap_in_versions, {VERSIONS}, 1, 0),
        (wrong_from, {FROM, ASSIGNED}, 0, 0),
        (first_from_somewhere, {FROM, ASSIGNED}, 0, 0),
        (change_segment, {ASSIGNED}, 0, 0),
        (change_version, {ASSIGNED}, 0, 0),
        (change_where_from, {ASSIGNED}, 0, 0),
        (change_since_when, {ASSIGNED}, 0, 0),
        (announce_stranger, {ASSIGNED}, 0, 0),
        (announce_on_other_partition, {VERSIONS, ASSIGNED}, 1, 0),
        (lose_field, {VALID, VERSIONS}, 1, 0),
        (bury_record, {VALID, VERSIONS}, 1, 0),
        (misname_change, {VALID, VERSIONS}, 1, 0),
        (wrong_header, {VALID}, 0, 0),
        (wrong_key, {VALID}, 0, 0),
        (miscount, {COUNTS}, 0, 0),
        (miscount_within_the_sum, {COUNTS}, 0, 0),
        (lose_letter, {LETTERS}, 0, 0),
        (misfile_letter, {LETTERS}, 0, 0),
        (change_letter, {LETTERS}, 0, 0),
        (file_good_message, {LETTERS}, 0, 0),
        (file_without_origin, {LETTERS}, 0, 0),
        (lose_message_in_the_middle, {STATE, COUNTS}, 0, 0),
        (cut_log, {LOG}, 0, 0),
        (make_log_anew, {LOG}, 0, 0),
        (other_schema, {LOG, ASSIGNED}, 0, 0),
    ],
)
def test_what_is_broken_is_named(
    break_it: Callable[[World], None], checks: set[str], lost: int, duplicated: int
) -> None:
    world = truthful()
    break_it(world)
    report = world.audit()
    assert failed(report).keys() == checks, failed(report)
    assert not report.ok
    assert (report.lost, report.duplicated) == (lost, duplicated)


def test_an_offender_is_named_so_that_one_can_go_and_look() -> None:
    world = truthful()
    change_sum(world)
    lose_letter(world)
    gap_in_versions(world)
    offenders = [words for names in failed(world.audit()).values() for words in names]
    assert "user 'ann' (partition 0): all_1h is" in offenders[0]
    assert "purchases/1@2 was refused (empty), but is not on purchases.dlq" in offenders
    assert "user 'ann' (partition 0): version 5 follows 3 (segment-changes/0@4)" in offenders
