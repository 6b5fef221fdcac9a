"""A stand-in for an object store with latency: the files of a folder as objects that can be read, each answer after a delay.

In: `python -m benchmarks.slow_store FOLDER SECONDS`. Out: a line with the port; then answers to GET and HEAD requests, until its
input ends. Signatures are not checked, and nothing is written; a listing has all files.
"""

from __future__ import annotations

import asyncio
import sys
from email.utils import formatdate
from functools import cache
from pathlib import Path
from urllib.parse import unquote


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path, delay: float) -> None:
    """Answer the requests of one connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            await asyncio.sleep(delay)
            path = folder / unquote(target.partition("?")[0]).lstrip("/").partition("/")[2]
            listing = "list-type=2" in target
            found = path.is_file() and not listing
            body = listed(folder) if listing else path.read_bytes() if found else b""
            lines = [
                "HTTP/1.1 200 OK" if found or listing else "HTTP/1.1 404 Not Found",
                f"Content-Length: {len(body)}",
            ]
            if found:
                status = path.stat()
                modified = formatdate(status.st_mtime, usegmt=True)
                lines += [f'ETag: "{status.st_mtime_ns:x}-{status.st_size:x}"', f"Last-Modified: {modified}"]
            writer.write("\r\n".join([*lines, "", ""]).encode() + (body if method == "GET" else b""))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has closed the connection
    finally:
        writer.close()


@cache
def listed(folder: Path) -> bytes:
    """All files of the folder, as one page of a listing."""
    entries = "".join(
        f"<Contents><Key>{path.name}</Key><Size>{path.stat().st_size}</Size><ETag>&quot;{path.stat().st_mtime_ns:x}-"
        f"{path.stat().st_size:x}&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for path in sorted(folder.iterdir())
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


async def serve(folder: Path, delay: float) -> None:
    server = await asyncio.start_server(lambda r, w: answer(r, w, folder, delay), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
