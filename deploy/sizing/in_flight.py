#!/usr/bin/env python3
"""Measures the memory of a call in flight: calls wait at a Lambda that answers when all are there, and the service is weighed.

    cargo build --release
    python3 deploy/sizing/in_flight.py target/release/lambda-policy

The calls come over plain HTTP/1.1, each on a connection of its own, and go out so too: that is what a call costs at most. Everything
stays on 127.0.0.1. sizing.py has the results.
"""

import asyncio
import pathlib
import socket
import subprocess
import sys
import tempfile

COUNTS, SIZES = (250, 500, 1000), (200, 100_000)


class Lambda:
    """Holds every call until it is let go."""

    def __init__(self):
        self.waiting, self.go, self.answer = 0, asyncio.Event(), b"{}"

    async def serve(self, reader, writer):
        try:
            while True:
                await read(reader)
                self.waiting += 1
                await self.go.wait()
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(self.answer)}\r\n\r\n"
                writer.write(head.encode() + self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


async def read(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return await reader.readexactly(length)


async def call(port, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/policies/p/http/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    await read(reader)
    writer.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident_kb(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


async def weigh(program, count, size):
    held = Lambda()
    server = await asyncio.start_server(held.serve, "127.0.0.1", 0, backlog=4096)
    upstream, grpc, admin = server.sockets[0].getsockname()[1], free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "policies.yaml")
        file.write_text(
            f"server: {{listen: '127.0.0.1:{grpc}', workers: 1, max_in_flight: {count + 10}, drain_delay: 0s}}\n"
            f"admin: {{listen: '127.0.0.1:{admin}'}}\n"
            f"policies: {{p: {{function: f, region: us-east-1, timeout: 60s, endpoint: {{url: 'http://127.0.0.1:{upstream}'}}, "
            f"credentials: {{access_key_id: A, secret_access_key: s}}}}}}\n"
        )
        process = subprocess.Popen([program, "serve", "--config", str(file)], stderr=subprocess.DEVNULL)
        try:
            await asyncio.sleep(1)
            idle = resident_kb(process)
            calls = [asyncio.create_task(call(grpc, b'"' + b"x" * (size - 2) + b'"')) for _ in range(count)]
            for _ in range(600):
                if held.waiting == count:
                    break
                await asyncio.sleep(0.05)
            assert held.waiting == count, f"{held.waiting} of {count} calls arrived"
            busy = resident_kb(process)
            held.go.set()
            await asyncio.gather(*calls)
        finally:
            process.terminate()
            process.wait(20)
            server.close()
    return idle, busy


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for size in SIZES:
        for count in COUNTS:
            idle, busy = asyncio.run(weigh(sys.argv[1], count, size))
            print(f"{size:>7} bytes, {count:>5} in flight: {idle} KB idle, {busy} KB busy, {(busy - idle) / count:.0f} KB a call")


if __name__ == "__main__":
    main()
