"""The mail provider that is built in: `outbox folder`. Letters become files that a person, or a mail system, picks up.

    FOLDER/<letter id>.eml    RFC 5322, mode 0600, written whole or not at all; the same letter again is the same file

It sends nothing over a network and says so by its name. Letters hold one-time tokens: the folder is for its owner only.
"""

from __future__ import annotations

import asyncio
import re
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from engine.messages.errors import Refused, Unavailable
from files.durable import keep_name, write_whole
from platform_api.ports import Letter

__all__ = ["OutboxFolder"]

LETTER_ID = re.compile(r"[A-Za-z0-9-]{1,80}")


class OutboxFolder:
    """Fulfils `platform_api.ports.MailPort`."""

    provider = "outbox folder"

    def __init__(self, folder: Path, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, letter: Letter) -> None:
        """Raises Unavailable (the disk), Refused (no letter can be made of it)."""
        if not LETTER_ID.fullmatch(letter.letter_id):
            raise Refused(f"{letter.letter_id!r} is no letter id")
        message = EmailMessage()
        try:
            message["From"], message["To"], message["Subject"] = self._sender, letter.to, letter.subject
            message["Date"], message["Message-ID"] = formatdate(), make_msgid(letter.letter_id, "byline.invalid")
            message.set_content(letter.text)
        except ValueError as error:  # a line break in a header
            raise Refused("no letter can be made of it") from error
        await asyncio.to_thread(self._write, letter.letter_id, bytes(message))

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{name}.eml"
            write_whole(path, content, mode=0o600)
            keep_name(path)
        except OSError as error:
            raise Unavailable("the outbox folder cannot be written") from error
