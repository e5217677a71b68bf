"""Server that takes pages: 20 ms for each, a limited number a second, and each idempotency key once.

``python -m benchmarks.page_server`` prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys

DELAY_S = 0.02
PER_SECOND = 500
"""Requests that it takes in any second; it answers others with status 429."""


class Server:
    """Counts of requests and of pages."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.keys: set[str] = set()
        self.requests = self.refused = 0
        self._begun: list[float] = []

    def _allows(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._begun = [each for each in self._begun if each > now - 1]
        if len(self._begun) >= PER_SECOND:
            return False
        self._begun.append(now)
        return True

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while line := await reader.readline():
                headers = {}
                while (header := await reader.readline()).strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                status, body = await self._handle(
                    line.decode().split()[1], headers.get("idempotency-key", "")
                )
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nRetry-After: 1\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except ConnectionError:
            pass  # its client was killed
        finally:
            writer.close()

    async def _handle(self, path: str, key: str) -> tuple[int, bytes]:
        if path == "/counts":
            counts = {"done": self.done, "requests": self.requests, "refused": self.refused}
            return 200, json.dumps(counts).encode()
        self.requests += 1
        if not self._allows():
            self.refused += 1
            return 429, b""
        await asyncio.sleep(DELAY_S)
        if key not in self.keys:
            self.keys.add(key)
            self.done.append(int(path.rpartition("/")[2]))
        return 200, b""


async def main() -> None:
    """Serve until the standard input ends."""
    server = await asyncio.start_server(Server().answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
