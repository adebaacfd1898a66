"""The page of `e2h label`: one step at a time, by keyboard, on this machine only.

The server binds 127.0.0.1. The page itself holds no data; all data needs the token of this start,
which the browser keeps behind the `#` of the address and sends as a header. So it appears in no log
and no other site can send it. Requests for another host name (DNS rebinding) or from another site
are refused, and the page may load nothing but its own script and style. Text of models is escaped
as in the report.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2h_pipeline.report.mathematics import rendered
from e2h_pipeline.solutions import ANSWER_MARKER
from e2h_pipeline.supervision.sessions import RATINGS, Session, StaleError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
_FOLDER = Path(__file__).parent
_FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
_FILES["/page.css"] = ("page.css", "text/css")
_HOSTS = (HOST, "localhost")
_LONGEST_BODY = 1000  # bytes
_LONGEST_PAUSE = 24 * 3600 * 1000  # milliseconds at one step
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Endpoint = Callable[["Request"], Awaitable["Response"]]


class PageError(RuntimeError):
    """The page cannot be served; one line for people."""


def serve(session: Session, port: int, ready: Callable[[str], None]) -> None:
    """Serve a session until Ctrl-C; `ready` is passed the address with its token.

    Args:
        port: on 127.0.0.1; 0 for any free one.

    Raises:
        PageError: the port is taken.
    """
    import uvicorn

    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise PageError(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from None
        listening.listen()
        ready(f"http://{HOST}:{listening.getsockname()[1]}/#{token}")
        config = uvicorn.Config(application(session, token), log_level="warning", access_log=False)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            return


def application(session: Session, token: str) -> Starlette:
    """The page and its two answers, `/state` and `/act`.

    Args:
        token: requests for data must carry it as `Authorization: Bearer TOKEN`.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    async def state(_request: Request) -> Response:
        return _state(session)

    async def act(request: Request) -> Response:
        return await _act(session, request)

    routes = [
        *(Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()),
        Route("/state", _guarded(state, token)),
        Route("/act", _guarded(act, token), methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)])


def _file(name: str, kind: str) -> Endpoint:
    """A file of the page; it holds no data, so it needs no token."""

    async def answer(_request: Request) -> Response:
        return _answered((_FOLDER / name).read_text(encoding="utf-8"), kind)

    return answer


def _guarded(endpoint: Endpoint, token: str) -> Endpoint:
    """An endpoint for requests of this page alone."""

    async def answer(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers['host']}":
            return _refused(403, "requests from other sites are refused")
        given = request.headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _refused(401, "open the address that `e2h label` printed: it has the token of this start")
        return await endpoint(request)

    return answer


async def _act(session: Session, request: Request) -> Response:
    """Take an action. It is on disk before the next step is sent."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_BODY:
            return _refused(413, "too long")
    try:
        asked = json.loads(body)
        action, version = str(asked["action"]), int(asked["version"])
        took = min(max(0, int(asked.get("milliseconds", 0))), _LONGEST_PAUSE)
        session.act(action, version, took)
    except StaleError:
        return _state(session, 409)  # another tab was faster: the page shows where the session is
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return _refused(400, f"{type(error).__name__}: {error}")
    return _state(session)


def _state(session: Session, status: int = 200) -> Response:
    body = {"version": session.version, "html": shown(session)}
    return _answered(json.dumps(body), "application/json", status)


def _refused(status: int, why: str) -> Response:
    return _answered(why, "text/plain", status)


def _answered(body: str, kind: str, status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(body, status, _HEADERS, kind)


def shown(session: Session) -> str:
    """The current step as HTML: question, earlier steps with their ratings, and the step to rate."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    current, total = session.current, len(session.queue.items)
    words = {rating: word for word, rating in RATINGS.items()}
    return environment.get_template("step.html.j2").render(
        total=total,
        number=len(session.finished) + 1,
        labels=sum(len(one.ratings) for one in session.finished) + (len(current.ratings) if current else 0),
        export=session.export.name,
        question=rendered(current.item.question) if current else "",
        earlier=[
            (words[rating], _parts(step))
            for step, rating in zip(current.item.steps, current.ratings, strict=False)
        ]
        if current
        else [],
        step=_parts(current.item.steps[len(current.ratings)]) if current else None,
        steps=len(current.item.steps) if current else 0,
        has_reference=bool(current and current.item.reference is not None),
        reference=rendered(current.item.reference or "") if current and current.reference_shown else None,
    )


def _parts(step: str) -> tuple[Any, Any]:
    """A step's text and, where it ends in an answer block, the answer."""
    body, marker, answer = step.partition(ANSWER_MARKER)
    return rendered(body.strip()), rendered(answer.strip()) if marker else None
