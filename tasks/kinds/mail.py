"""Sending mail: through the installation's mail server, or into a directory when it has none."""

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from ipaddress import ip_address
from pathlib import Path
from string import Template
from types import MappingProxyType
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field

from tasks.catalogue import Timed, job_type
from tasks.context import Context, DoNotRetry
from tasks.kinds.pace import take_time

_SERVER_PATIENCE_SECONDS = 30
_PORTS = {"smtp": 25, "smtps": 465}
_ADDRESS = r"^[^\s@,<>]+@[^\s@,<>]+$"

_TEMPLATES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "welcome": ("Welcome", "Hello $to,\n\nyour account is ready. Good to have you here.\n"),
        "alert": ("Alert", "Hello $to,\n\nsomething needs your attention.\n"),
        "notification": ("Notification", "Hello $to,\n\nthe work you asked for is done.\n"),
        "report": ("Report", "Hello $to,\n\nyour report is ready.\n"),
    }
)
_OWN_TEMPLATE = ("$template", "Hello $to,\n\nthis is the $template you asked for.\n")


class Mail(Timed):
    """One message. *subject* and *body* may name values of *data* as ``$name``."""

    to: str = Field("somebody@example.com", pattern=_ADDRESS, max_length=320)
    sender: str = Field("fairq@example.com", pattern=_ADDRESS, max_length=320)
    template: str = Field("notification", pattern=r"^[\w .-]{1,100}$")
    subject: str | None = Field(None, max_length=500, description="Instead of the template's.")
    body: str | None = Field(None, max_length=100_000, description="Instead of the template's.")
    data: dict[str, str | int | float] = Field(default_factory=dict)


@job_type(
    "send_email",
    payload=Mail,
    description="Sends a mail, or puts it into the outbox directory.",
    timeout_seconds=60,
)
def send_email(context: Context, payload: Mail) -> dict[str, str]:
    """Send one message; its id is the same whenever this attempt is delivered."""
    take_time(context, payload.duration_seconds, doing="writing the mail")
    message = compose(payload, context.idempotency_key)
    if context.settings.smtp_url:
        _send(message, context.settings.smtp_url)
        delivered = "sent"
    else:
        outbox = context.settings.home / "outbox"
        delivered = _file(message, outbox, context.idempotency_key).name
    context.info(f"mail to {payload.to}: {message['Subject']}")
    return {"to": payload.to, "subject": str(message["Subject"]), "delivered": delivered}


def compose(payload: Mail, key: str) -> EmailMessage:
    """Return the message a payload describes."""
    usual_subject, usual_body = _TEMPLATES.get(payload.template, _OWN_TEMPLATE)
    values = {**payload.data, "to": payload.to, "template": payload.template}
    message = EmailMessage()
    message["From"], message["To"] = payload.sender, payload.to
    subject = Template(payload.subject or usual_subject).safe_substitute(values)
    message["Subject"] = " ".join(subject.split())
    domain = payload.sender.rpartition("@")[2]
    message["Message-ID"] = f"<fairq.{key.replace(':', '.')}@{domain}>"
    message.set_content(Template(payload.body or usual_body).safe_substitute(values))
    return message


def _send(message: EmailMessage, url: str) -> None:
    parts = urlsplit(url)
    with _server(parts) as server:
        _secure(server, parts)
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        try:
            server.send_message(message)
        except smtplib.SMTPRecipientsRefused as refusal:
            raise DoNotRetry(f"the mail server refuses {message['To']}") from refusal


def _server(parts: SplitResult) -> smtplib.SMTP:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if parts.scheme == "smtps":
        trust = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, timeout=_SERVER_PATIENCE_SECONDS, context=trust)
    return smtplib.SMTP(host, port, timeout=_SERVER_PATIENCE_SECONDS)


def _secure(server: smtplib.SMTP, parts: SplitResult) -> None:
    """Encrypt what is not, if the server can.

    Raises DoNotRetry if a password would pass a network as it is.
    """
    server.ehlo_or_helo_if_needed()  # only now it is known what the server can
    if parts.scheme == "smtps":
        return
    if server.has_extn("starttls"):
        server.starttls(context=ssl.create_default_context())
    elif parts.username and not _is_here(server):
        raise DoNotRetry(f"{parts.hostname} offers no encryption; the password was not sent")


def _is_here(server: smtplib.SMTP) -> bool:
    """Tell whether the server is on this very machine."""
    return server.sock is not None and ip_address(server.sock.getpeername()[0]).is_loopback


def _file(message: EmailMessage, outbox: Path, key: str) -> Path:
    """Write the message whole or not at all; delivered twice, it is still one file."""
    outbox.mkdir(parents=True, exist_ok=True)
    path = outbox / f"{key.replace(':', '-')}.eml"
    draft = path.with_suffix(".part")
    draft.write_bytes(message.as_bytes(policy=SMTP))
    return draft.replace(path)
