"""The page, as it is served and as a browser shows it; whether a machine can find fault with how it is built."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ops.bench.takeover import NOW_MS
from stream.api.application import Api
from stream.store.memory import MemoryStore
from stream.units import iso
from tests.conftest import unavailable
from tests.stream.api.browser import Browser, why_unavailable
from tests.stream.api.serving import READS, Served, change, filled, serving, settings_of
from tests.stream.campaigns.making import crossing

PAGE = {
    file.name: file.read_text(encoding="utf-8")
    for file in files("stream.api").joinpath("page").iterdir()
}
VENDORED = Path(__file__).parent.parent.parent / "vendored"
AXE = VENDORED / "axe-core" / "axe.min.js"
EVIL = "<img src=x onerror=alert(1)>\u202e"


# -- as it is served --------------------------------------------------------------------------


def test_everybody_gets_the_files_and_nobody_facts(served: Served) -> None:
    for name, text in PAGE.items():
        reply = served.ask("/" if name == "index.html" else f"/page/{name}", None)
        assert reply.status == 200
        assert reply.body.decode() == text
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
    for path in ("/page/", "/page/../page.py", "/page/%2e%2e/pages.py", "/page/nothing.js"):
        assert served.ask(path, None).status == 404


def test_nothing_is_inline_or_from_elsewhere() -> None:
    assert PAGE.keys() == {
        "index.html",
        "page.css",
        "page.js",
        "parts.js",
        "drawings.js",
        "icon.svg",
    }
    assert not re.search(
        r"\sstyle=|\son\w+=|<script(?![^>]*\ssrc=\"/page/)[^>]*>|<style", PAGE["index.html"]
    )
    for name, text in PAGE.items():
        elsewhere = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert elsewhere == set(), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), name
        assert not re.search(r"@import|url\(", text), name
    assert sum(map(len, PAGE.values())) < 60_000


def test_what_is_vendored_for_tests_is_what_it_says() -> None:
    (told,) = re.findall(r"`([0-9a-f]{64})`", (VENDORED / "README.md").read_text())
    assert sha256(AXE.read_bytes()).hexdigest() == told


# -- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if why := why_unavailable():
        unavailable(why)
    with Browser() as opened:
        yield opened


def with_levels(api: Api, patch: pytest.MonkeyPatch) -> None:
    """As if levels were declared: everybody is gold."""
    segments, why, users = api.facts.segments, api.facts.why, api._lookups._find
    stands = {"level": "standing", "step": "gold", "looks_at": {"revenue_180d": 320.0}}
    steps = [
        {"level": "standing", "step": step, "limits": limits, "users": number}
        for step, limits, number in (
            ("gold", [{"of": "revenue_180d", "least": 250.0}], 60),
            ("rest", [], 540),
        )
    ]
    turn = {"days": 12, "at": iso(NOW_MS), "step": "rest"}

    def why_with(user: str) -> Any:
        told = why(user)
        return told and {**told, "levels": [{**stands, "silence": [turn], "acts": []}]}

    patch.setattr(api.facts, "segments", lambda: {**segments(), "levels": steps})
    patch.setattr(api.facts, "why", why_with)
    patch.setattr(
        api._lookups,
        "_find",
        lambda names: [one and {**one, "levels": [stands]} for one in users(names)],
    )


def with_campaigns(api: Api, patch: pytest.MonkeyPatch) -> None:
    """As if they had been at work: one helps, one harms with arms that are not as declared, one begins."""

    def compared(arm: str, verdict: str, users: int, low: float, high: float) -> Any:
        between = (low + high) / 2
        nothing = {
            "treated": 0.0, "held_out": 0.0, "difference": 0.0, "sequence": None, "plain": None,
        }  # fmt: skip
        bought = nothing | {"treated": 0.2 + between, "held_out": 0.2, "difference": between}
        seen = {"sequence": [low, high], "plain": [low, high]} if users else {}
        return {
            "arm": arm, "users": users, "held_out_users": users // 4, "verdict": verdict,
            "missing": None if users else 4_321, "conversion": bought | seen, "revenue": nothing, "active": nothing,
        }  # fmt: skip

    def campaign(name: str, comparisons: list[Any], *, as_declared: bool = True) -> Any:
        effect = {
            "version": "v", "declared": True, "within_seconds": 604_800.0, "hope": 0.02, "arms": [],
            "comparisons": comparisons, "as_declared": as_declared, "ratio_evidence": 1.0,
        }  # fmt: skip
        outcomes = {"sent": 812, "holdout": 203}
        return {
            "name": name, "version": "v", "paused": not as_declared, "looked_at": 12_345, "outcomes": outcomes,
            "effects": [effect] if comparisons else [],
        }  # fmt: skip

    told = [
        campaign("win-back", [compared("coupon", "helps", 812, 0.012, 0.064),
                              compared("letter", "not_enough_yet", 790, -0.021, 0.034)]),
        campaign("spam", [compared("sent", "harms", 640, -0.081, -0.013)], as_declared=False),
        campaign("welcome", [compared("sent", "not_enough_yet", 0, 0.0, 0.0)]),
        campaign("without a goal", []),
    ]  # fmt: skip
    patch.setattr(api.facts, "campaigns", lambda: {"campaigns": told})


@pytest.fixture(scope="module")
def shown(api_store: MemoryStore) -> Iterator[Served]:
    """Without clients, so that no token is asked for."""
    with (
        serving(settings_of(), api_store, clients=()) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        with_levels(running.api, patch)
        with_campaigns(running.api, patch)
        segments = running.get("/v1/segments", token=None)["segments"]
        changes = []
        for number in range(60):
            before, after = (segments[(number * step) % len(segments)] for step in (1, 3))
            changes.append(
                change(
                    number,
                    f"user-{number % 9}",
                    at=iso(NOW_MS - (60 - number) * 600_000),
                    kind_from=before["kind"],
                    kind_to=after["kind"],
                    name_to=after["name"],
                    why=[{"feature": "days_since_seen", "value": 12.34, "contribution": 0.2}],
                    **{"from": before["id"], "to": after["id"]},
                )
            )
        crossed = {
            "level": "standing",
            "step_from": "rest",
            "step_to": "gold",
            "cause": "user_moved",
        }
        at_ms = NOW_MS - 30 * 600_000
        changes.insert(30, crossing("user-5", at_ms, 1_000, **crossed))
        running.feed.tell(changes)
        running.feed.state = "up"
        yield running


def opened(browser: Browser, served: Served, width: int = 1_280, scheme: str = "light") -> None:
    browser.size(width, 900)
    browser.scheme(scheme)
    browser.open(f"http://127.0.0.1:{served.port}/")
    browser.until("document.body.dataset.shown")


def faults(browser: Browser) -> list[Any]:
    """What axe finds, with where."""
    browser.run(AXE.read_text(encoding="utf-8"))
    return list(
        browser.run_later(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations.map("
            "(one) => [one.id, one.nodes.map((node) => node.target.join(' ')).slice(0, 5)])));"
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1_280, "light"), (390, "dark")])
def test_all_of_it_is_shown_and_axe_finds_nothing(
    browser: Browser, shown: Served, width: int, scheme: str, tmp_path: Path
) -> None:
    opened(browser, shown, width, scheme)
    browser.until("document.querySelector('#feed button')")
    first = browser.run("return document.querySelector('#feed button').innerText")
    browser.until(f"document.querySelector('#story h3')?.innerText === '{first}'")
    browser.run(
        "[...document.querySelectorAll('#feed button')].find((one) => one.innerText === 'user-5').click()"
    )
    browser.until("document.querySelector('#story h3')?.innerText === 'user-5'")
    browser.until("document.querySelector('#model dl')")
    browser.until("document.querySelector('#map circle')")
    count = len(shown.get("/v1/segments", token=None)["segments"])
    assert browser.run("return document.querySelectorAll('#segments .card').length") == count
    assert browser.run("return document.querySelectorAll('#flows path').length") > 0
    text = browser.text()
    for words in (
        *("All is well", "Who goes where", "What comes next", "win-back", "Populations"),
        *("Level: standing", "gold (from 250, revenue in 180 days)", "rest in 12 days of silence"),
        *(
            "standing: gold after rest (acted)",
            "last seen 12 days ago",
            " in the last day: ",
        ),
        *(
            "coupon: It helps",
            "letter: Not known yet",
            "24 % of 812 treated bought, 20 % of 203 held out",
        ),
        *("It does harm", "arms are not as large as declared", "about 4,321 shoppers more"),
    ):
        assert words in text, words
    for nonsense in ("undefined", "NaN", "[object", "null", "Invalid Date"):
        assert nonsense not in text
    assert browser.run("return document.documentElement.scrollWidth") <= width
    (Path(os.environ.get("PICTURES", tmp_path)) / f"page-{width}-{scheme}.png").write_bytes(
        browser.picture()
    )
    assert faults(browser) == []
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_change_comes_by_itself_and_is_held_back(browser: Browser, shown: Served) -> None:
    opened(browser, shown)
    browser.until("document.querySelectorAll('#feed li').length > 5")
    browser.until("document.getElementById('live').dataset.state === 'up'")
    shown.feed.tell([change(1_000, EVIL, name_to=EVIL)])
    first = browser.until(
        "document.querySelector('#feed li').innerText.includes('onerror') && document.querySelector('#feed li').innerText"
    )
    assert "\\u{202e}" in first, "what turns text around is shown as what it is"
    assert browser.run("return document.querySelector('#feed img')") is None
    browser.run("document.getElementById('hold').click()")
    shown.feed.tell([change(1_001, "held-back")])
    browser.until("document.getElementById('hold').innerText.includes('(1)')")
    assert "held-back" not in browser.text()
    browser.run("document.getElementById('hold').click()")
    browser.until("document.querySelector('#feed li').innerText.includes('held-back')")


@pytest.mark.slow
def test_keys_reach_everything_and_a_story_is_told(browser: Browser, shown: Served) -> None:
    opened(browser, shown)
    browser.press("\ue004")
    assert browser.run("return document.activeElement.className") == "skip"
    reached = set()
    for _ in range(200):
        browser.press("\ue004")
        reached.add(
            browser.run("return document.activeElement.id || document.activeElement.className")
        )
        if "user" in reached:
            break
    assert reached >= {"within", "theme", "kind", "hold", "feed", "user"}
    browser.press("user-7\ue007")
    browser.until("document.querySelector('#story h3')?.innerText === 'user-7'")
    browser.run("document.getElementById('user').value = 'nobody'")
    browser.run("document.getElementById('user').focus()")
    browser.press("\ue007")
    browser.until("document.querySelector('#story .error')?.innerText.includes('nobody')")


@pytest.mark.slow
def test_a_token_is_asked_for_and_stays_in_the_tab(browser: Browser, served: Served) -> None:
    opened(browser, served)
    browser.until("!document.getElementById('gate').hidden")
    assert faults(browser) == []
    for token, ends in (
        ("wrong", "!document.getElementById('gate').hidden"),
        (READS, "document.querySelector('#segments .card')"),
    ):
        browser.run("document.getElementById('token').value = arguments[0]", token)
        browser.run("document.getElementById('gate-form').requestSubmit()")
        browser.until(ends)
    assert READS not in browser.run(
        "return location.href + document.cookie + JSON.stringify(localStorage)"
    )
    browser.run("document.getElementById('sign').click()")
    browser.until("!document.getElementById('gate').hidden")
    assert browser.run("return sessionStorage.getItem('token')") is None


@pytest.mark.slow
def test_before_there_is_anything_and_when_the_store_is_away(browser: Browser) -> None:
    with serving(settings_of(campaigns=[]), MemoryStore(), clients=()) as nothing:
        opened(browser, nothing)
        text = browser.text()
        for words in (
            "No worker has begun yet",
            "No model has been learned yet",
            "No campaigns are declared",
        ):
            assert words in text
        assert faults(browser) == []
    with serving(settings_of(), filled(settings_of()), clients=()) as broken:
        opened(browser, broken)
        broken.pipeline.broken = RuntimeError("inner workings")
        browser.until("document.querySelector('#attention-body .error')")
        assert "inner workings" not in browser.text()
        broken.pipeline.broken = None
        browser.until("document.querySelector('#attention-body .well')")
    browser.until(
        "document.querySelector('#attention-body .error')?.innerText.includes('does not answer')"
    )
    assert json.loads(browser.run("return JSON.stringify(Object.keys(sessionStorage))")) == []
