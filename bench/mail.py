"""A mail that is ready, sent with stdlib smtplib over a kept connection: what the Python peers do."""

import smtplib

SENDER = "daily@news.example.com"


class Sender:
    """One connection to the sink."""

    def __init__(self, port: int, mail: bytes) -> None:
        self._smtp, self._mail = smtplib.SMTP("127.0.0.1", port, local_hostname="bench.example"), mail
        self._smtp.ehlo()

    def send(self, address: str) -> None:
        self._smtp.mail(SENDER)
        self._smtp.rcpt(address)
        code, text = self._smtp.data(self._mail)
        if code != 250:
            raise smtplib.SMTPDataError(code, text)

    def close(self) -> None:
        self._smtp.quit()


def ready_mail(size: int) -> bytes:
    """A mail of exactly so many bytes."""
    head = b"From: daily@news.example.com\r\nTo: reader@d1.example\r\nSubject: benchmark\r\n\r\n"
    line = b"The same letters again, seventy-six of them in a line of text, as mail has.\r\n"
    body = (line * (size // len(line) + 1))[: max(2, size - len(head)) - 2]
    return head + body + b"\r\n"
