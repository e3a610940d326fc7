"""The API, asked over HTTP as anybody would."""

from __future__ import annotations

import csv
import io
import logging
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator

from ops.bench.takeover import NOW_MS
from stream.api.document import document
from stream.api.operations import OPERATIONS
from stream.insight import queries
from stream.insight.why import why
from stream.store.memory import MemoryStore
from stream.store.state import StoreRefusedError, StoreUnavailableError
from stream.units import iso
from tests.stream.api.serving import (
    ALL,
    ODD_USERS,
    READS,
    USERS,
    Served,
    change,
    filled,
    serving,
    settings_of,
)

SEGMENTS_PATH = "/v1/segments"


def problem(reply: Any, status: int, name: str) -> str:
    """That a reply is a problem, and what it says."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    told = reply.json()
    assert told["type"] == f"urn:segstream:problem:{name}"
    assert told["status"] == status
    assert not any(word in told["detail"] for word in ("Traceback", ".py"))
    detail: str = told["detail"]
    return detail


# -- facts ------------------------------------------------------------------------------------


def test_a_user_is_told_as_the_command_tells_them(served: Served, api_store: MemoryStore) -> None:
    settings = settings_of()
    reader = queries.Reader(settings, api_store, settings.table())
    found = served.get("/v1/users", "user-1")
    recent = [change(number, "user-1") for number in (1, 4, 7, 10)]
    assert found == reader.user("user-1", lambda _: recent)
    assert found["segment"]["name"]
    assert len(found["distances"]) > 1
    assert served.get("/v1/users/user-1/why") == why(reader, "user-1")
    told = served.get("/v1/users/user-1/changes?limit=2")
    assert told == {"since": iso(NOW_MS), "changes": recent[-2:]}


@pytest.mark.parametrize("user", ODD_USERS)
def test_any_id_can_be_asked_for(served: Served, user: str) -> None:
    assert served.get("/v1/users", user)["user"] == user
    assert "margin" in served.get("/v1/users", user, "why")
    assert served.get("/v1/users", user, "changes")["changes"] == []


def test_many_who_ask_at_once_each_get_their_own(served: Served) -> None:
    names = [f"user-{number}" for number in range(120)]
    found: dict[str, Any] = {}

    def ask(mine: list[str]) -> None:
        for name in mine:
            found[name] = served.get("/v1/users", name)["user"]

    threads = [threading.Thread(target=ask, args=(names[place::12],)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {name: name for name in names}


def test_what_is_not_there_is_told(served: Served) -> None:
    assert "'nobody'" in problem(served.ask("/v1/users/nobody"), 404, "not-there")
    problem(served.ask("/v1/users/nobody/why"), 404, "not-there")
    assert served.get("/v1/users/nobody/changes")["changes"] == []
    problem(served.ask("/v1/segments/999"), 404, "not-there")
    problem(served.ask("/v1/members?segment=999"), 404, "not-there")
    assert "at_risk" in problem(served.ask("/v1/members?kind=x"), 404, "not-there")
    problem(served.ask("/v1/members?population=x"), 404, "not-there")
    problem(served.ask("/v1/campaigns/x"), 404, "not-there")
    problem(served.ask("/nowhere"), 404, "not-there")
    problem(served.ask("/v1/users/a/b/c"), 404, "not-there")


def test_segments_and_the_model(served: Served) -> None:
    told = served.get(SEGMENTS_PATH)
    assert len(told["segments"]) > 1
    first = told["segments"][0]
    assert served.get(f"/v1/segments/{first['id']}") == first
    model = served.get("/v1/model")
    assert model["model"] == told["model"]
    assert [one["name"] for one in model["populations"]] == [
        one["name"] for one in told["populations"]
    ]
    lineage = served.get("/v1/lineage")
    assert lineage["model"] == told["model"]
    assert lineage["records"] == []


def test_pages_have_all_members_and_end(served: Served) -> None:
    found, pages, after = [], 0, ""
    while pages == 0 or after:
        page = served.get(f"/v1/members?limit=300{after}")
        found += page["members"]
        after = f"&cursor={page['next']}" if page["next"] else ""
        pages += 1
    names = {member["user"] for member in found}
    assert pages >= 5
    assert len(names) == USERS + len(ODD_USERS)
    segment = found[0]["segment"]
    of_one = served.get(f"/v1/members?segment={segment}&limit=10000")["members"]
    assert {member["segment"] for member in of_one} == {segment}
    assert {one["user"] for one in found if one["segment"] == segment} >= {
        one["user"] for one in of_one
    }
    assert served.get("/v1/members?since=2100-01-01")["members"] == []
    assert served.get("/v1/members?cursor=9999-0") == {"members": [], "next": None}


def test_a_table_has_everybody_once(served: Served) -> None:
    for _ in range(3):
        reply = served.ask("/v1/members.csv")
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(reply.body.decode(), newline="")))
        assert len(rows) == USERS + len(ODD_USERS)
        assert {row["user"] for row in rows} >= set(ODD_USERS)


def test_changes_are_the_latest_of_what_is_wanted(served: Served) -> None:
    told = served.get("/v1/changes?limit=3")["changes"]
    assert [one["id"] for one in told] == ["change-9", "change-10", "change-11"]
    since = quote(iso(NOW_MS + 10_000))
    assert len(served.get(f"/v1/changes?since={since}")["changes"]) == 2
    assert served.get("/v1/changes?kind=loyal")["changes"] == []


def test_flows_and_how_the_pipeline_stands(served: Served) -> None:
    told = served.get("/v1/flows?within=7d")
    (flow,) = told["flows"]
    assert (flow["kind_from"], flow["kind_to"], flow["changes"]) == ("new", "at_risk", 12)
    standing = served.get("/v1/standing")
    assert standing["partitions_begun"] == standing["partitions"] == 4
    assert standing["feed"] == "up"
    assert standing["latest_change"] == iso(NOW_MS + 11_000)


def test_campaigns_that_have_decided_nothing_yet(served: Served) -> None:
    (campaign,) = served.get("/v1/campaigns")["campaigns"]
    assert campaign["name"] == "win-back"
    assert served.get("/v1/campaigns/win-back") == campaign


def test_answers_are_as_the_document_says(served: Served) -> None:
    told = document()
    assert served.ask("/openapi.json", None).json() == told
    operations = {
        operation["operationId"]: operation
        for methods in told["paths"].values()
        for operation in methods.values()
    }
    assert operations.keys() == {operation.name for operation in OPERATIONS}
    asked = {
        "user": "/v1/users/user-1", "why": "/v1/users/user-1/why", "model": "/v1/model",
        "segments": SEGMENTS_PATH, "members": "/v1/members?limit=5", "changes": "/v1/changes",
        "campaigns": "/v1/campaigns", "flows": "/v1/flows", "standing": "/v1/standing",
        "lineage": "/v1/lineage", "map": "/v1/map?limit=50",
    }  # fmt: skip
    for name, path in asked.items():
        (content,) = operations[name]["responses"]["200"]["content"].values()
        schema = content["schema"] | {"components": told["components"]}
        Draft202012Validator(schema).validate(served.get(path))


def test_the_guide_names_everything_that_may_be_asked() -> None:
    page = (Path(__file__).parents[3] / "ops" / "guide" / "api.md").read_text(encoding="utf-8")
    assert {f"{one.method} {one.path}" for one in OPERATIONS} == set(
        re.findall(r"`((?:GET|PATCH|PUT) /v1/[^`]+)`", page)
    )


# -- who may ------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "wrong", READS[:-1], READS + "x", "é" * 30])
def test_without_the_right_token_there_is_nothing(served: Served, token: str | None) -> None:
    headers = (
        {} if token is None else {"Authorization": f"Bearer {token}".encode().decode("latin-1")}
    )
    reply = served.ask("/v1/users/user-1", None, **headers)
    said = problem(reply, 401, "no-token")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert not token or token not in said
    problem(served.ask(SEGMENTS_PATH, None, Authorization=f"Basic {READS}"), 401, "no-token")


def test_who_may_only_read_changes_nothing(served: Served) -> None:
    (first, *_) = served.get(SEGMENTS_PATH)["segments"]
    path = f"/v1/segments/{first['id']}"
    problem(served.ask(path, READS, "PATCH", {"name": "x"}), 403, "no-scope")
    pause = "/v1/campaigns/win-back/paused"
    problem(served.ask(pause, READS, "PUT", {"paused": True}), 403, "no-scope")
    assert served.pipeline.said == []
    assert served.pipeline.kept.given_names() == {}


def test_nothing_changes_anything_but_what_says_so(served: Served) -> None:
    writes = {(one.method, one.path) for one in OPERATIONS if one.method != "GET"}
    assert {path for _, path in writes} == {
        "/v1/segments/{segment}",
        "/v1/campaigns/{campaign}/paused",
    }
    for operation in OPERATIONS:
        path = operation.path.replace("{user}", "user-1").replace("{segment}", "1")
        path = path.replace("{campaign}", "win-back")
        for method in ("POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"):
            if not any(method == verb and operation.path == where for verb, where in writes):
                reply = served.ask(path, ALL, method)
                assert reply.status == 405, (method, path)
                assert "GET" in reply.headers["allow"] or "PUT" in reply.headers["allow"]


def test_a_page_of_somebody_else_cannot_read_without_tokens(api_store: MemoryStore) -> None:
    """Whose name was given this machine's address."""
    with serving(settings_of(), api_store, clients=()) as served:
        for host in ("127.0.0.1", "localhost:80", f"127.0.0.1:{served.port}", "[::1]:9"):
            assert served.ask(SEGMENTS_PATH, None, Host=host).status == 200
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""):
            problem(served.ask(SEGMENTS_PATH, None, Host=host), 403, "wrong-host")
        problem(served.ask("/v1/segments/1", None, "PATCH", {"name": "x"}), 403, "no-scope")


# -- what changes something --------------------------------------------------------------------


@pytest.fixture
def own() -> Any:
    with serving(settings_of(), filled(settings_of())) as running:
        yield running


def test_a_segment_gets_a_name(own: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stream.api")
    first, second, *_ = own.get(SEGMENTS_PATH)["segments"]
    path = f"/v1/segments/{first['id']}"
    told = own.ask(path, ALL, "PATCH", {"name": "Bargain hunters"}).json()
    assert told == {"segment": first["id"], "before": first["name"], "name": "Bargain hunters"}
    assert own.pipeline.kept.given_names() == {first["id"]: "Bargain hunters"}
    assert "boss: segment" in caplog.text
    problem(own.ask(path, ALL, "PATCH", {"name": second["name"]}), 409, "conflict")
    problem(own.ask(path, ALL, "PATCH", {"name": "a\nb"}), 409, "conflict")
    problem(own.ask("/v1/segments/999", ALL, "PATCH", {"name": "x"}), 404, "not-there")
    unreadable: tuple[Any, ...] = (
        {},
        {"name": ""},
        {"name": "x" * 61},
        {"name": 7},
        {"name": "x", "kind": "y"},
        [],
    )
    for wrong in unreadable:
        problem(own.ask(path, ALL, "PATCH", wrong), 400, "bad-request")
    problem(own.ask(path, ALL, "PATCH", b"{", Content_Type="application/json"), 400, "bad-request")
    problem(own.ask(path, ALL, "PATCH", b"name=x"), 415, "not-json")
    large = b'{"name": "' + b"x" * 100_000 + b'"}'
    problem(own.ask(path, ALL, "PATCH", large, Content_Type="application/json"), 413, "too-large")


def test_a_campaign_is_paused_and_goes_on(own: Served) -> None:
    path = "/v1/campaigns/win-back/paused"
    for paused in (True, False):
        told = own.ask(path, ALL, "PUT", {"paused": paused}).json()
        assert told["partitions"] == 4
        assert (
            told["record"].items()
            >= {"by": "boss", "campaign": "win-back", "paused": paused}.items()
        )
    assert [one["paused"] for one in own.pipeline.said] == [True, False]
    problem(own.ask("/v1/campaigns/other/paused", ALL, "PUT", {"paused": True}), 404, "not-there")
    problem(own.ask(path, ALL, "PUT", {"paused": "yes"}), 400, "bad-request")
    own.pipeline.no_broker = True
    assert "say it again" in problem(
        own.ask(path, ALL, "PUT", {"paused": True}), 503, "unavailable"
    )


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/users/%FF", "no UTF-8"),
        ("/v1/users/" + "x" * 1_001, "user: "),
        ("/v1/users/a?x=1", "there is no parameter 'x'"),
        ("/v1/users/a?user=b", "user: it is given twice"),
        ("/v1/segments/x", "segment: "),
        ("/v1/segments/0", "segment: "),
        ("/v1/segments/99999999999999999999", "segment: "),
        ("/v1/members?limit=0", "limit: "),
        ("/v1/members?limit=1000000000", "limit: "),
        ("/v1/members?limit=1&limit=2", "limit: it is given twice"),
        ("/v1/members?cursor=x", "cursor: "),
        ("/v1/members?since=soon", "since: expected a time"),
        ("/v1/members?since=", "since: "),
        ("/v1/changes?limit=-1", "limit: "),
        ("/v1/flows?within=1y", "within: "),
        ("/v1/changes?kind=%FF", "no UTF-8"),
        ("/v1/changes?" + "&".join(f"a{n}=1" for n in range(50)), "too long"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told(served: Served, path: str, said: str) -> None:
    assert said in problem(served.ask(path), 400, "bad-request")


def test_no_error_shows_more_than_it_should(own: Served, caplog: pytest.LogCaptureFixture) -> None:
    own.pipeline.broken = StoreUnavailableError("redis://user:geheim@host:1 does not answer")
    reply = own.ask("/v1/users/user-1")
    assert "geheim" not in problem(reply, 503, "unavailable")
    assert reply.headers["retry-after"]
    own.pipeline.broken = StoreRefusedError("no right")
    problem(own.ask(SEGMENTS_PATH), 503, "unavailable")
    own.pipeline.broken = RuntimeError("secret inner workings")
    assert problem(own.ask("/v1/users/user-1"), 500, "fault") == ""
    assert "secret inner workings" in caplog.text
    own.pipeline.broken = None
    assert own.get("/v1/users", "user-1")["user"] == "user-1"


def test_before_there_is_a_model() -> None:
    with serving(settings_of(), MemoryStore()) as served:
        for path in (SEGMENTS_PATH, "/v1/model", "/v1/lineage", "/v1/members", "/v1/segments/1"):
            problem(served.ask(path), 404, "no-model")
        problem(served.ask("/v1/users/ann"), 404, "not-there")
        assert served.get("/v1/standing")["attention"][0]["what"] == "No worker has begun yet"


def test_every_answer_says_that_it_is_for_this_asker_alone(served: Served) -> None:
    for path in ("/v1/users/user-1", "/nowhere", "/openapi.json", "/v1/members.csv"):
        headers = served.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in headers
