"""Requests to endpoints: signed, to addresses that were looked at, and one answer each, however rude."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from producers.addresses import refusal
from producers.webhooks import Sender, resolve
from stream.webhooks.declare import Endpoint
from stream.webhooks.queue import Attempt
from stream.webhooks.schedule import Answer
from tests.certificates import Authority
from tests.conftest import unavailable
from tests.endpoint import LocalEndpoint, Manner
from tests.stream.webhooks.making import OTHER_SECRET, SECRET, endpoint, trigger

PATIENCE_SECONDS = 120.0
"""Nothing is quick enough for a test by the clock: a machine with much else to do fails nothing."""
SOURCE = "/segstream/shop/campaigns"


class Outbox:
    """Sends, and waits for the answers."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._answers: queue.Queue[tuple[str, Answer]] = queue.Queue()

    def begin(self, one: Endpoint, numbers: Sequence[int]) -> None:
        attempts = [Attempt(one, f"{one.name}/{n}", trigger(n)) for n in numbers]
        self._sender.send(attempts, lambda key, answer: self._answers.put((key, answer)))

    def next(self) -> tuple[str, Answer]:
        return self._answers.get(timeout=PATIENCE_SECONDS)

    def ask(self, one: Endpoint, number: int = 1) -> Answer:
        self.begin(one, [number])
        return self.next()[1]


@contextmanager
def outbox(
    *endpoints: Endpoint, secrets: Sequence[str] = (SECRET,), **more: Any
) -> Iterator[Outbox]:
    known = {one.name: secrets for one in endpoints}
    with Sender(endpoints, known, SOURCE, **more) as sender:
        yield Outbox(sender)


def local(server: LocalEndpoint, **fields: Any) -> Endpoint:
    told: dict[str, Any] = {"url": server.url, "private": True, "timeout": PATIENCE_SECONDS}
    return endpoint(**(told | fields))


def test_a_receiver_that_has_the_secret_knows_it_by_the_official_library() -> None:
    with LocalEndpoint(SECRET) as server, outbox(local(server)) as out:
        assert out.ask(local(server)) == Answer(200)
    (found,) = server.received
    assert found.id == trigger()["id"]
    assert found.body["data"] == trigger()
    assert found.headers["host"] == f"127.0.0.1:{server.port}"
    assert server.forged == 0


def test_one_secret_takes_the_others_place() -> None:
    with (
        LocalEndpoint(OTHER_SECRET) as server,
        outbox(local(server), secrets=[SECRET, OTHER_SECRET]) as out,
    ):
        assert out.ask(local(server)).arrived
    assert len(server.received[0].headers["webhook-signature"].split()) == 2


def test_another_secret_is_no_good_signature() -> None:
    with (
        LocalEndpoint(OTHER_SECRET) as server,
        outbox(local(server), secrets=[SECRET]) as out,
    ):
        out.ask(local(server))
    assert (server.forged, server.received) == (1, [])


@pytest.mark.parametrize(
    ("manner", "answer"),
    [
        (Manner.WELL, Answer(200)),
        (Manner.SLOW, Answer(200)),
        (Manner.BROKEN, Answer(500)),
        (Manner.BUSY, Answer(429, "1")),
        (Manner.GONE, Answer(410)),
        (Manner.ELSEWHERE, Answer(302)),
        (Manner.ENDLESS, Answer(200)),
    ],
)
def test_each_manner_comes_to_an_answer(manner: Manner, answer: Answer) -> None:
    with LocalEndpoint(SECRET, lambda _: manner) as server, outbox(local(server)) as out:
        assert out.ask(local(server)) == answer
    assert [one.path for one in server.received] == ["/in"]


@pytest.mark.parametrize(
    ("manner", "said"),
    [(Manner.HALF, "ClientPayloadError"), (Manner.NEVER, "no answer in 0.5 s")],
)
def test_an_answer_that_is_not_whole_is_none(manner: Manner, said: str) -> None:
    with LocalEndpoint(SECRET, lambda _: manner) as server:
        one = local(server, timeout=0.5)
        with outbox(one) as out:
            answer = out.ask(one)
    assert answer.status is None
    assert said in answer.error


def test_nobody_there_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        one = endpoint(url=f"http://127.0.0.1:{unused.getsockname()[1]}/", private=True)
        with outbox(one) as out:
            assert out.ask(one).status is None


def test_an_endpoint_that_never_answers_delays_no_other() -> None:
    with (
        LocalEndpoint(SECRET, lambda _: Manner.NEVER) as dead,
        LocalEndpoint(SECRET) as alive,
    ):
        one, other = local(dead), local(alive, name="mail")
        with outbox(one, other) as out:
            out.begin(one, range(50))
            out.begin(other, range(50))
            keys = {out.next()[0] for _ in range(50)}
    assert keys == {f"mail/{n}" for n in range(50)}


def test_connections_are_used_again() -> None:
    with LocalEndpoint(SECRET) as server, outbox(local(server)) as out:
        for number in range(20):
            assert out.ask(local(server), number).arrived
        assert server.connections == 1


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("172.16.0.1", False, True),
        ("192.168.1.1", False, True),
        ("fd12:3456::1", False, True),
        ("::ffff:10.1.2.3", False, True),
        ("::ffff:93.184.216.34", True, True),
        ("64:ff9b::a01:203", False, True),
        ("2002:a01:203::1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fe80::1%eth0", False, False),
        ("fd00:ec2::254", False, False),
        ("0.0.0.0", False, False),  # noqa: S104 - nobody listens here
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
        ("240.0.0.1", False, False),
        ("100.100.100.200", False, False),
        ("168.63.129.16", False, False),
        ("192.0.0.192", False, False),
        ("::ffff:168.63.129.16", False, False),
        ("fd00:ec2::23", False, False),
        ("fd20:ce::254", False, False),
        ("fd00:42::42", False, False),
        # Other ways to write an IPv4 address into an IPv6 one, and what is given to nobody.
        ("::7f00:1", False, False),
        ("::169.254.169.254", False, False),
        ("::ffff:0:127.0.0.1", False, False),
        ("64:ff9b:1::a9fe:a9fe", False, False),
        ("2001:0:a9fe:a9fe::1", False, False),
        ("fec0::1", False, False),
        ("2001:db8::1", False, True),
        ("4000::1", False, False),
        ("0.1.2.3", False, True),
        ("198.18.0.1", False, True),
    ],
)
def test_which_addresses_may_be_called(address: str, public: bool, private: bool) -> None:
    assert (refusal(address, private=False) is None) == public
    assert (refusal(address, private=True) is None) == private


def test_an_address_inside_is_not_called_unless_declared() -> None:
    with LocalEndpoint(SECRET) as server:
        one = endpoint(url=f"https://127.0.0.1:{server.port}/in")
        with outbox(one) as out:
            answer = out.ask(one)
    assert answer.status is None
    assert "is a private address" in answer.error
    assert server.received == []


def test_a_name_is_looked_at_at_each_attempt() -> None:
    """It leads outside at first, and inside later: nothing inside is called."""
    asked: list[str] = []

    async def rebound(host: str, port: int) -> Sequence[str]:
        del port
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.1", "169.254.169.254"]

    with LocalEndpoint(SECRET) as server:
        one = local(server, url=f"http://crm.example:{server.port}/in")
        with outbox(one, resolved=rebound) as out:
            assert out.ask(one).arrived
            assert "is an address that is never called" in out.ask(one).error
        assert server.received[0].headers["host"] == f"crm.example:{server.port}"
    assert asked == ["crm.example"] * 2
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1", "localhost"),
        *("[::1]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]"),
    ],
)
def test_however_an_address_inside_is_written_it_is_not_called(host: str) -> None:
    with LocalEndpoint(SECRET) as server:
        one = endpoint(url=f"https://{host}:{server.port}/in")
        with outbox(one) as out:
            assert "is a private address" in out.ask(one).error
        assert server.connections == 0


def test_attempts_that_come_while_a_name_is_resolved_share_the_answer() -> None:
    """So a name that nobody resolves holds one thread, and not one for each attempt."""
    asked: list[str] = []
    let_go = threading.Event()

    async def slow(host: str, port: int) -> Sequence[str]:
        del port
        asked.append(host)
        await asyncio.to_thread(let_go.wait, PATIENCE_SECONDS)
        return ["127.0.0.1"]

    with LocalEndpoint(SECRET) as server:
        url = f"http://crm.example:{server.port}/in"
        hasty = local(server, url=url, timeout=0.3)
        patient = local(server, url=url)
        with outbox(hasty, resolved=slow) as out:
            out.begin(hasty, range(5))
            assert {out.next()[1].error for _ in range(5)} == {"no answer in 0.3 s"}
            # Those gave up; who waits longer for the same lookup gets what comes of it.
            out.begin(patient, range(5, 10))
            let_go.set()
            assert all(out.next()[1].arrived for _ in range(5))
            assert asked == ["crm.example"]
            assert out.ask(patient, 10).arrived
        assert asked == ["crm.example"] * 2


def test_the_next_address_is_tried_where_the_first_cannot_be_connected_to() -> None:
    async def both(host: str, port: int) -> Sequence[str]:
        del host, port
        return ["::1", "127.0.0.1"]

    with LocalEndpoint(SECRET) as server:
        one = local(server, url=f"http://crm.example:{server.port}/in")
        with outbox(one, resolved=both) as out:
            assert out.ask(one).arrived


def test_an_attempt_has_an_answer_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(host: str, port: int) -> Sequence[str]:
        raise ValueError(f"{host}:{port} is not foreseen")

    one = endpoint(url="https://crm.example/in")
    with outbox(one, resolved=broken) as out:
        assert out.ask(one) == Answer(None, error="ValueError")
    assert "not foreseen" in caplog.text


@contextmanager
def saying(answer: bytes) -> Iterator[int]:
    """A server that says the same to whoever connects, and hangs up; its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.connection.recv(65_536)
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("said", "arrives"),
    [
        (b"", False),
        (b"what do you want\r\n\r\n", False),
        (b"HTTP/1.1 two hundred\r\n\r\n", False),
        (b"HTTP/1.1 99999 OK\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 50, False),
        (OK + b"content-length: -5\r\n\r\n", False),
        (OK + b"content-length: five\r\n\r\n", False),
        (OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n", False),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nno", False),
        (OK + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", True),
        (OK + b"retry-after: \xff\xfe\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", False),
        (b"HTTP/1.1 000 x\r\n\r\n", False),
        (OK + b"content-length: 0\r\ncontent-length: 5\r\n\r\n", False),
        (OK + b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"\x16\x03\x01\x00\x05hello", False),
        (OK + b"\x00: \x1b[31m\r\n" * 40 + b"\r\n", False),
    ],
)
def test_whatever_is_said_is_an_answer_or_none(
    said: bytes, arrives: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with saying(said) as port:
        one = endpoint(url=f"http://127.0.0.1:{port}/in", private=True, timeout=PATIENCE_SECONDS)
        with outbox(one) as out:
            answer = out.ask(one)
    assert answer.arrived == arrives, answer
    # It stands in letters and logs: a line, however much was said.
    assert len(answer.told) <= 300
    assert answer.told.isprintable()
    # It was foreseen.
    assert "Traceback" not in caplog.text


@contextmanager
def flooding(head: bytes, piece: bytes, pause_seconds: float = 0.0) -> Iterator[int]:
    """A server that begins an answer and never comes to its end; its port."""
    ended = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            with suppress(OSError):
                self.request.sendall(head)
                while not ended.wait(pause_seconds):
                    self.request.sendall(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        ended.set()
        server.shutdown()
        thread.join()


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "arrives"),
    [
        (OK, b"x: y\r\n" * 1_000, False),
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100, False),
        (CHUNKED + b"1;", b"x" * 100_000, False),
        (CHUNKED + b"0\r\n", b"x: y\r\n" * 1_000, False),
        # Whoever says yes has said it; nothing more is read than an answer needs.
        (CHUNKED, (b"400\r\n" + b"x" * 1_024 + b"\r\n") * 64, True),
        (OK + b"content-length: 99999999999\r\ncontent-encoding: gzip\r\n\r\n", b"x" * 1_000, True),
    ],
)
def test_a_flood_is_no_answer_and_holds_no_other_endpoint_up(
    head: bytes, piece: bytes, arrives: bool
) -> None:
    with flooding(head, piece) as port, LocalEndpoint(SECRET) as server:
        url = f"http://127.0.0.1:{port}/in"
        # Who says yes is waited for; who never comes to an end is given up while the others are served.
        timeout = PATIENCE_SECONDS if arrives else 1
        rude = endpoint(name="rude", url=url, private=True, timeout=timeout)
        well = local(server, name="well")
        with outbox(rude, well) as out:
            out.begin(rude, range(4))
            out.begin(well, range(20))
            answers = [out.next() for _ in range(24)]
    # None of the other's is too late.
    assert [a.arrived for key, a in answers if key.startswith("well/")] == [True] * 20
    assert [a.arrived for key, a in answers if key.startswith("rude/")] == [arrives] * 4


@pytest.mark.parametrize(
    "head",
    [
        *(b"HTTP/1.1 200 ", OK, OK + b"x: ", CHUNKED + b"1;"),
        OK + b"content-length: 99999\r\n\r\n",
    ],
)
def test_an_answer_that_comes_drop_by_drop_has_no_more_time_than_any_other(head: bytes) -> None:
    """Each drop comes in time, and the whole never."""
    with flooding(head, b"1", pause_seconds=0.02) as port:
        url = f"http://127.0.0.1:{port}/in"
        one = endpoint(url=url, private=True, timeout=0.5)
        with outbox(one) as out:
            assert out.ask(one).error == "no answer in 0.5 s"


def test_an_endpoint_may_be_at_an_ipv6_address() -> None:
    asked: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(65_536))
            self.request.sendall(OK + b"content-length: 0\r\n\r\n")

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6

    try:
        server = Server(("::1", 0), Handler)
    except OSError as error:
        unavailable(f"needs IPv6 on loopback: {error}")
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        port = server.server_address[1]
        one = endpoint(url=f"http://[::1]:{port}/in", private=True)
        with outbox(one) as out:
            assert out.ask(one).arrived
        server.shutdown()
        thread.join()
    assert b"host: [::1]:%d" % port in asked[0].lower()


def test_what_went_wrong_tells_no_token_of_a_url() -> None:
    with saying(OK + b"content-length: five\r\n\r\n") as port:
        url = f"http://127.0.0.1:{port}/in/t0ken?key=t0ken"
        one = endpoint(url=url, private=True, timeout=PATIENCE_SECONDS)
        with outbox(one) as out:
            error = out.ask(one).error
    assert error.startswith("ClientResponseError: ")
    assert "t0ken" not in error


def test_names_are_resolved() -> None:
    found = asyncio.run(resolve("localhost", 80))
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found


def test_nothing_is_sent_before_there_is_tls() -> None:
    with LocalEndpoint(SECRET) as server:
        one = local(server, url=f"https://127.0.0.1:{server.port}/in", timeout=0.5)
        with outbox(one) as out:
            assert out.ask(one).status is None
    assert server.received == []


@pytest.mark.parametrize(
    ("vouched_for", "days", "host", "arrives"),
    [
        (True, 2, "crm.example", True),
        (True, 2, "crm.example.", True),
        (True, 2, "crm.other", False),
        (False, 2, "crm.example", False),
        (True, 0, "crm.example", False),
    ],
)
def test_a_certificate_is_to_be_of_the_name_vouched_for_and_valid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vouched_for: bool,
    days: int,
    host: str,
    arrives: bool,
) -> None:
    async def here(host: str, port: int) -> Sequence[str]:
        del host, port
        return ["127.0.0.1"]

    authority = Authority(tmp_path)
    shown = authority.sign("crm.example", days)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(shown.certificate, shown.key)
    # A server with several names chooses its certificate by the one that it is asked for.
    asked: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    if vouched_for:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with LocalEndpoint(SECRET, tls=tls) as server:
        one = local(server, url=f"https://{host}:{server.port}/in")
        with outbox(one, resolved=here) as out:
            answer = out.ask(one)
    assert answer.arrived == arrives, answer.told
    assert len(server.received) == arrives
    assert set(asked) == {host.rstrip(".")}
    assert arrives or "certificate" in answer.error.lower()


def test_an_error_names_no_secret() -> None:
    one = endpoint(format="klaviyo", url="https://127.0.0.1:1/in?key=hush-hush", private=True)
    with outbox(one, secrets=["pk_hush-hush"]) as out:
        assert "hush-hush" not in out.ask(one).told


def test_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with LocalEndpoint(SECRET) as server:
        one = local(server, url=f"{server.url}?key=hush-hush")
        with outbox(one) as out:
            assert out.ask(one).arrived
    assert "hush-hush" not in caplog.text


def test_an_attempt_under_way_ends_with_the_sender() -> None:
    began = time.monotonic()
    with LocalEndpoint(SECRET, lambda _: Manner.NEVER) as server:
        one = local(server, timeout=300)
        with outbox(one) as out:
            out.begin(one, range(3))
            while len(server.received) < 3:
                assert time.monotonic() - began < PATIENCE_SECONDS
                time.sleep(0.01)
    assert time.monotonic() - began < PATIENCE_SECONDS
