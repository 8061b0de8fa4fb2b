"""A stand-in for Telegram's Bot API: 30 messages in any second, the next one gets a 429. Every method succeeds."""

import asyncio
import json
import re
import threading
import time
from collections import Counter, deque
from typing import Self

from bench.processes import BenchError

#: "about 30 messages a second" (Telegram's Bots FAQ, "My bot is hitting limits").
PER_SECOND = 30
RETRY_AFTER = 3


class BotApi:
    """Serves in a thread while the block runs. Only sendMessage and its kind count."""

    def __init__(self, per_second: int = PER_SECOND) -> None:
        self._limit = per_second
        self._recent: deque[float] = deque()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self.refused = 0
        self.chats: Counter[str] = Counter()
        #: When each message was taken (time.time_ns).
        self.times: list[int] = []

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="bot-api", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise BenchError("the Bot API stand-in did not start")
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def seconds(self) -> list[int]:
        """Messages by second since the first."""
        if not self.times:
            return []
        found = Counter((moment - self.times[0]) // 10**9 for moment in self.times)
        return [found[second] for second in range(max(found) + 1)]

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                status, answer = self._answer(
                    head.split()[1].rpartition("/")[2], body.decode("utf-8", "replace")
                )
                text = json.dumps(answer).encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode()
                    + text
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, body: str) -> tuple[str, dict[str, object]]:
        if not method.startswith("send"):
            return "200 OK", {
                "ok": True,
                "result": {"id": 1, "is_bot": True, "first_name": "b", "username": "b"},
            }
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        if len(self._recent) >= self._limit:
            self.refused += 1
            return "429 Too Many Requests", {
                "ok": False,
                "error_code": 429,
                "description": f"Too Many Requests: retry after {RETRY_AFTER}",
                "parameters": {"retry_after": RETRY_AFTER},
            }
        self._recent.append(now)
        self.times.append(time.time_ns())
        chat = re.search(r"chat_id\W+(\d+)", body)
        self.chats[chat[1] if chat else ""] += 1
        return "200 OK", {
            "ok": True,
            "result": {
                "message_id": len(self.times),
                "date": int(time.time()),
                "chat": {"id": int(chat[1]) if chat else 1, "type": "private"},
                "text": "",
            },
        }
