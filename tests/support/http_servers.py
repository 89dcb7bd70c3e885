"""Servers for the HTTP tests: the standard library's for WSGI, and the least that runs an ASGI application."""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own word
        pass


class _Threaded(ThreadingMixIn, WSGIServer):
    pass


def _with_whole_body(app: Callable[..., Any]) -> Callable[..., Any]:
    """Read the body first: closing on bytes that nobody read would reset the connection under the answer."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        return app({**environ, "wsgi.input": io.BytesIO(body)}, start_response)

    return answer


@contextmanager
def wsgi_server(app: Callable[..., Any]) -> Iterator[str]:
    """Serve a WSGI application, checked against PEP 3333, and give its address."""
    whole = _with_whole_body(validator(app))
    server: WSGIServer = make_server("127.0.0.1", 0, whole, _Threaded, _Quiet)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/report"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def asgi_server(app: Callable[[Any, Any, Any], Awaitable[Any]]) -> Iterator[str]:
    """Serve an ASGI application, one request to a connection, and give its address."""
    started, address = threading.Event(), []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = [line.split(": ", 1) for line in head[1:] if line]
        headers = [(name.lower().encode(), value.encode()) for name, value in pairs]
        length = int(dict(headers).get(b"content-length", b"0"))
        body = await reader.readexactly(length)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                lines = [f"HTTP/1.1 {event['status']} x", "Connection: close"]
                lines += [f"{name.decode()}: {value.decode()}" for name, value in event["headers"]]
                writer.write("\r\n".join([*lines, "", ""]).encode())
            else:
                writer.write(event["body"])
                writer.close()

        await app({"type": "http", "method": method, "path": path, "headers": headers}, receive, send)

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/report")
        started.set()
        await over.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(60)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
