import csv
import email
import email.policy
import json
import smtplib
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from scheduler.settings import Settings
from scheduler.store.work import Claim
from tasks import kinds
from tasks.catalogue import CATALOGUE, Timed
from tasks.context import Cancelled, Context, DoNotRetry, Notebook
from tasks.kinds.data import prices
from tests.tasks.conftest import make_claim, make_home_settings

READY = {
    "simulate", "http_request", "send_email", "data_fetch",
    "data_processing", "data_export", "report_generation", "generate_report",
}  # fmt: skip

SCENARIO_PAYLOADS = [
    ("send_email", {"to": "user@example.com", "template": "welcome"}),
    ("send_email", {"to": "vip@example.com", "template": "alert"}),
    ("generate_report", {"report_type": "daily_summary", "date": "2024-01-15"}),
    ("data_fetch", {"source": "market_api", "symbols": ["AAPL", "GOOGL"]}),
    ("data_processing", {"duration_seconds": 0.01}),
    ("send_email", {"duration_seconds": 0.01}),
    ("simulate", {"duration_seconds": 0.01}),
]
WITHOUT_PAYLOAD = sorted(READY - {"http_request"})


class Desk:
    """Runs handlers as a worker would, and keeps what they say."""

    def __init__(self, settings: Settings) -> None:
        self.home = settings.home
        self.notebook = Notebook(lambda: None)
        self._settings = settings

    def run(self, name: str, payload: dict[str, Any] | None = None, **fields: Any) -> Any:
        context = self.context(make_claim(**fields))
        kind = CATALOGUE.get(name)
        assert kind is not None
        quick = {"duration_seconds": 0, **(payload or {})}
        return kind.handler(context, kind.payload.model_validate(quick))

    def context(self, claim: Claim) -> Context:
        return Context(claim, self._settings, self.notebook)

    def said(self) -> list[str]:
        return [line.message for line in self.notebook.take().lines]


@pytest.fixture
def desk(home_settings: Settings) -> Desk:
    return Desk(home_settings)


def test_the_ready_kinds_are_there_and_take_a_duration() -> None:
    assert {kind.name for kind in CATALOGUE} >= READY
    assert set(kinds.__all__) == {"bulk", "data", "http_request", "mail", "reports", "simulate"}
    for name in READY:
        kind = CATALOGUE.get(name)
        assert kind is not None
        assert issubclass(kind.payload, Timed)
        assert kind.description


@pytest.mark.parametrize("name", sorted(READY))
def test_schemas_are_valid_and_name_a_description_for_people(name: str) -> None:
    kind = CATALOGUE.get(name)
    assert kind is not None

    Draft202012Validator.check_schema(kind.payload_schema)


@pytest.mark.parametrize(
    ("name", "payload"), [*SCENARIO_PAYLOADS, *((name, {}) for name in WITHOUT_PAYLOAD)]
)
def test_payloads_of_the_scenarios_are_accepted_and_run(
    desk: Desk, name: str, payload: dict[str, Any]
) -> None:
    kind = CATALOGUE.get(name)
    assert kind is not None
    Draft202012Validator(kind.payload_schema).validate(payload)

    json.dumps(desk.run(name, payload), allow_nan=False)


@pytest.mark.parametrize("name", WITHOUT_PAYLOAD)
def test_a_job_that_takes_its_time_stops_when_it_is_to(desk: Desk, name: str) -> None:
    kind = CATALOGUE.get(name)
    assert kind is not None
    context = desk.context(make_claim())
    context.request_stop()

    with pytest.raises(Cancelled):
        kind.handler(context, kind.payload.model_validate({"duration_seconds": 60}))


def test_simulate_tells_its_progress_and_returns_what_it_was_given(desk: Desk) -> None:
    payload = {"steps": 4, "message": "hello", "log_lines": 2, "result": {"a": [1]}}

    assert desk.run("simulate", payload) == {"a": [1]}

    notes = desk.notebook.take()
    assert notes.progress is not None
    assert notes.progress.fraction == 1
    assert [line.message for line in notes.lines] == ["hello", "line 1 of 2", "line 2 of 2"]


def test_simulate_fails_as_many_attempts_as_it_is_told(desk: Desk) -> None:
    for attempt in (1, 2):
        with pytest.raises(kinds.simulate.SimulatedFailure):
            desk.run("simulate", {"fail_attempts": 2, "result": 1}, attempt=attempt)

    assert desk.run("simulate", {"fail_attempts": 2, "result": 1}, attempt=3) == 1


def test_simulate_fails_for_good_when_it_is_told(desk: Desk) -> None:
    with pytest.raises(DoNotRetry):
        desk.run("simulate", {"fail_attempts": 1, "retryable": False})


def mails(home: Path) -> list[Any]:
    policy = email.policy.default
    return [
        email.message_from_bytes(path.read_bytes(), policy=policy)
        for path in sorted((home / "outbox").iterdir())
    ]


def test_without_a_server_a_mail_becomes_one_file_however_often_it_is_delivered(
    desk: Desk,
) -> None:
    for _ in range(2):
        result = desk.run("send_email", {"to": "a@example.com", "template": "welcome"})

    (mail,) = mails(desk.home)
    assert (mail["To"], mail["Subject"]) == ("a@example.com", "Welcome")
    assert mail["Message-ID"] == "<fairq.7.1@example.com>"
    assert result["delivered"] == "7-1.eml"


def test_a_mail_may_bring_its_own_words(desk: Desk) -> None:
    desk.run(
        "send_email",
        {"subject": "Hi $name", "body": "You owe $$ $sum.", "data": {"name": "Ann", "sum": 3}},
    )

    (mail,) = mails(desk.home)
    assert (mail["Subject"], mail.get_content().strip()) == ("Hi Ann", "You owe $ 3.")


def test_an_unknown_template_is_named_in_the_mail(desk: Desk) -> None:
    desk.run("send_email", {"template": "newsletter"})

    assert mails(desk.home)[0]["Subject"] == "newsletter"


def test_no_header_can_be_smuggled_into_a_mail(desk: Desk) -> None:
    desk.run(
        "send_email",
        {"subject": "x $evil", "data": {"evil": "y\r\nBcc: everybody@example.com"}},
    )

    (mail,) = mails(desk.home)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "x y Bcc: everybody@example.com"


@pytest.mark.parametrize("address", ["nobody", "a@b, c@d", "a@b\nBcc: c@d", "<a@b>"])
def test_what_is_no_address_is_refused(desk: Desk, address: str) -> None:
    with pytest.raises(ValueError, match="to"):
        desk.run("send_email", {"to": address})


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as sending one mail takes."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[str] = []
        self.refuses = False
        self.offers: tuple[str, ...] = ()
        super().__init__(("127.0.0.1", 0), _MailSession)


class _MailSession(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            verb = line.upper().split()[0]
            if verb == "DATA":
                self._say("354 go on")
                self._receive()
            elif verb == "EHLO":
                self._say("\r\n".join(["250-here", *self.server.offers, "250 HELP"]))
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say(self._answer(verb, line))

    def _answer(self, verb: str, line: str) -> str:
        if verb == "RCPT" and self.server.refuses:
            return "550 nobody of that name"
        if verb == "AUTH":
            self.server.received.append(line)
            return "235 welcome"
        return "454 not now" if verb == "STARTTLS" else "250 ok"

    def _receive(self) -> None:
        lines = []
        while (line := self.rfile.readline().decode().rstrip("\r\n")) != ".":
            lines.append(line)
        self.server.received.append("\n".join(lines))
        self._say("250 taken")

    def _say(self, words: str) -> None:
        self.wfile.write(f"{words}\r\n".encode())


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def mailing_desk(mail_server: MailServer, tmp_path: Path) -> Desk:
    url = f"smtp://127.0.0.1:{mail_server.server_address[1]}"
    return Desk(make_home_settings(tmp_path, FAIRQ_SMTP_URL=url))


def test_with_a_server_a_mail_is_sent(mailing_desk: Desk, mail_server: MailServer) -> None:
    result = mailing_desk.run("send_email", {"to": "a@example.com", "template": "alert"})

    assert result["delivered"] == "sent"
    assert "Subject: Alert" in mail_server.received[0]
    assert not (mailing_desk.home / "outbox").exists()


def test_a_refused_recipient_is_not_tried_again(
    mailing_desk: Desk, mail_server: MailServer
) -> None:
    mail_server.refuses = True

    with pytest.raises(DoNotRetry, match="refuses a@"):
        mailing_desk.run("send_email", {"to": "a@example.com"})


def test_a_mail_is_not_sent_in_plain_text_to_a_server_that_can_encrypt(
    mailing_desk: Desk, mail_server: MailServer
) -> None:
    mail_server.offers = ("250-STARTTLS",)

    with pytest.raises(smtplib.SMTPResponseException, match="not now"):
        mailing_desk.run("send_email", {"to": "a@example.com"})

    assert mail_server.received == []


@pytest.fixture
def known_desk(mail_server: MailServer, tmp_path: Path) -> Desk:
    """A desk that signs in, at a server that does not encrypt."""
    mail_server.offers = ("250-AUTH PLAIN",)
    url = f"smtp://ann:secret@127.0.0.1:{mail_server.server_address[1]}"
    return Desk(make_home_settings(tmp_path, FAIRQ_SMTP_URL=url))


def test_a_password_reaches_a_server_on_the_same_machine(
    known_desk: Desk, mail_server: MailServer
) -> None:
    known_desk.run("send_email", {"to": "a@example.com"})

    assert mail_server.received[0].startswith("AUTH PLAIN")
    assert "To: a@example.com" in mail_server.received[1]


def test_a_password_does_not_pass_a_network_in_plain_text(
    known_desk: Desk, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds.mail, "_is_here", lambda _: False)

    with pytest.raises(DoNotRetry, match="offers no encryption"):
        known_desk.run("send_email", {"to": "a@example.com"})

    assert mail_server.received == []


def test_the_certificate_of_a_mail_server_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[ssl.SSLContext] = []

    def connect(*_: object, context: ssl.SSLContext, **__: object) -> None:
        contexts.append(context)
        raise ConnectionRefusedError

    monkeypatch.setattr(smtplib, "SMTP_SSL", connect)
    desk = Desk(make_home_settings(tmp_path, FAIRQ_SMTP_URL="smtps://mail.example.com"))

    with pytest.raises(ConnectionRefusedError):
        desk.run("send_email", {"to": "a@example.com"})

    assert [(each.verify_mode, each.check_hostname) for each in contexts] == [
        (ssl.CERT_REQUIRED, True)
    ]


def test_prices_are_made_up_but_always_the_same(desk: Desk) -> None:
    first, second = (desk.run("data_fetch", {"symbols": ["AAPL"], "days": 5}) for _ in range(2))

    assert first == second
    assert first["prices"]["AAPL"] == prices("AAPL", 5)
    assert prices("AAPL", 5) != prices("GOOGL", 5)


def test_figures_are_those_of_the_values(desk: Desk) -> None:
    result = desk.run("data_processing", {"values": [1, 2, 3, 4], "window": 2})

    assert result["figures"]["values"] == {
        "count": 4,
        "mean": 2.5,
        "standard_deviation": 1.291,
        "lowest": 1,
        "highest": 4,
        "last": 4,
        "moving_average": 3.5,
    }


def test_an_export_is_a_file_with_a_row_for_each_symbol_and_day(desk: Desk) -> None:
    result = desk.run("data_export", {"symbols": ["A", "B"], "days": 3})

    with Path(result["file"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["rows"] == 6
    assert rows[0] == {"symbol": "A", "date": "2024-01-02", "price": str(prices("A", 3)[0])}
    assert Path(result["file"]).is_relative_to(desk.home / "files")


def test_an_export_as_json_says_the_same(desk: Desk) -> None:
    result = desk.run("data_export", {"symbols": ["A"], "days": 2, "format": "json"})

    assert [row["price"] for row in json.loads(Path(result["file"]).read_text())] == prices("A", 2)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", ""])
def test_an_export_stays_in_its_own_directory(desk: Desk, name: str) -> None:
    with pytest.raises(ValueError, match="filename"):
        desk.run("data_export", {"filename": name})


@pytest.mark.parametrize(
    ("name", "payload", "title"),
    [
        ("report_generation", {"symbols": ["AAPL"]}, "Market report"),
        ("generate_report", {"report_type": "daily_summary"}, "Daily summary"),
    ],
)
def test_a_report_has_a_title_and_a_line_for_each_symbol(
    desk: Desk, name: str, payload: dict[str, Any], title: str
) -> None:
    result = desk.run(name, payload)

    assert result["title"] == title
    assert "AAPL" in result["text"]
    assert Path(result["file"]).read_text() == result["text"]
    assert desk.said() == [f"wrote {title!r}"]
