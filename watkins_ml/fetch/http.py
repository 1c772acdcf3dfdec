"""HTTP requests with retries and limits; nothing that a server sends is trusted.

What may pass is tried again with growing waits, what will not is one clear sentence; an answer has an end in time and
in bytes, and so have its redirects.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlparse

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from watkins_ml.core.errors import UserError, first_line
from watkins_ml.core.errors import plain as plain_text

TRIES = 6
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 120.0
TIMEOUT_S = (15.0, 60.0)
"""To connect, and between two pieces of an answer."""
HEADERS_S = 120.0
"""For the head of an answer, whole, and for a list: a server may send it letter by letter."""
WATCH_S = 30.0
SLOWEST_BYTES = 5_000
"""A body that brings less in WATCH_S counts as silent."""
MOST_REDIRECTS = 10
MOST_LIST_BYTES = 4_000_000
"""Of a list of files as JSON; the longest known, of the Hugging Face Hub, has 20 kB."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
BLOCK_BYTES = 1 << 20

Result = TypeVar("Result")


class PassingError(Exception):
    """A fault that may be gone in a moment; `wait_s` is how long the server asked to be left alone.

    One that took minutes counts as several, its `weight`.
    """

    def __init__(self, message: str, wait_s: float = 0.0, weight: int = 1):
        super().__init__(message)
        self.wait_s, self.weight = wait_s, weight


class TooLongError(UserError):
    """A body with more bytes than it may have."""


def patiently(name: str, attempt: Callable[[], Result], progressed: Callable[[], bool] = lambda: False) -> Result:
    """The result of `attempt`, which is called again after a `PassingError`; tries count anew after progress.

    Raises:
        UserError: TRIES faults in a row; the sentence begins with `name`.
    """
    failures = tries = 0
    while True:
        tries += 1
        try:
            return attempt()
        except PassingError as fault:
            if progressed():
                failures, tries = 0, 1
            failures += fault.weight
            if failures >= TRIES:
                raise UserError(
                    f"{name}: {fault}, after {tries} tries; check the network and run the same command again, which "
                    "goes on from here"
                ) from None
            wait = FIRST_WAIT_S * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
            time.sleep(min(max(wait, fault.wait_s), LONGEST_WAIT_S))


class Bounded(HTTPAdapter):
    """Gives every answer an end: its head in time, a redirect without its body, JSON of at most MOST_LIST_BYTES.

    Other bodies are left to be read by `pieces` where the request was made with `stream`, else are read like JSON.
    """

    def send(self, request: requests.PreparedRequest, stream: bool = False, *_: Any, **given: Any) -> requests.Response:
        given["timeout"] = TIMEOUT_S
        ask = super().send
        response = _in_time(HEADERS_S, lambda: ask(request, stream=True, **given))
        if response.is_redirect:
            response.raw.close()
            response._content = b""  # requests would read it to its end
        elif not stream or "json" in response.headers.get("Content-Type", "").lower():
            response._content = b"".join(pieces(response, MOST_LIST_BYTES, HEADERS_S))
        return response


def bounded(session: requests.Session) -> requests.Session:
    """A session that trusts no server."""
    session.max_redirects = MOST_REDIRECTS
    for scheme in ("http://", "https://"):
        session.mount(scheme, Bounded())
    return session


def get(
    url: str,
    headers: Mapping[str, str] | None = None,
    accepted: tuple[int, ...] = (200,),
    session: requests.Session | None = None,
) -> requests.Response:
    """One streamed answer of a status in `accepted`; read it by `pieces` and close it.

    Raises:
        PassingError: no connection, a time-out, or a status that says so.
        UserError: any other status, or an address that leads nowhere.
    """
    plain = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of its compressed form
    try:
        session = session or bounded(requests.Session())
        response = session.get(url, headers=plain | dict(headers or {}), stream=True)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise PassingError(f"no answer from {host_of(url)} ({_reason(error)})") from None
    except (requests.RequestException, HTTPError, ValueError) as error:  # too many redirects, an address that is none
        raise UserError(f"{url}: {first_line(error)}; the release may have moved, see its page") from None
    if response.status_code in accepted:
        return response
    status = plain_text(f"{response.status_code} {response.reason}")
    wait_s = _retry_after(response)
    response.close()
    if response.status_code in PASSING:
        raise PassingError(f"{host_of(url)} answers {status}", wait_s)
    what = {
        401: "needs an account",
        403: "needs an account or is closed",
        404: "is not there (any more)",
        410: "is not there any more",
    }
    raise UserError(
        f"{url} {what.get(response.status_code, 'cannot be had')} ({status}); see the release's page, or take another "
        "release (watkins fetch --help)"
    )


def pieces(response: requests.Response, most: int, seconds: float = float("inf")) -> Iterator[bytes]:
    """The body of an answer as it comes, undecoded.

    Args:
        seconds: for the whole of it.

    Raises:
        PassingError: the connection broke off, or brings less than SLOWEST_BYTES in WATCH_S.
        TooLongError: more than `most` bytes come.
    """
    left = most
    if response._content is not False:  # JSON, which is here already
        yield from filter(None, [response.content])
        return
    with _watched(response, seconds) as watch:
        while True:
            try:
                block = response.raw.read1(min(BLOCK_BYTES, left + 1), decode_content=False)
            except (HTTPError, OSError, ValueError) as error:
                raise PassingError(f"the connection broke off ({_reason(error)})") from None
            finally:
                if watch.is_slow:
                    raise PassingError(f"{host_of(response.url)} sends almost nothing", weight=3)
            if not block:
                return
            left -= len(block)
            if left < 0:
                raise TooLongError(f"{host_of(response.url)}: sends more than the {most:,} bytes that it may")
            watch.came += len(block)
            yield block


def get_json(name: str, url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON at an address; raises UserError where there is none, after trying again what may pass."""

    def attempt() -> Any:
        with get(url, headers) as response:
            content = b"".join(pieces(response, MOST_LIST_BYTES, HEADERS_S))
        try:
            return json.loads(content)
        except (ValueError, RecursionError):  # also numbers of thousands of digits
            raise PassingError(f"{host_of(url)} answers with no JSON") from None

    return patiently(name, attempt)


def whole_number(value: Any) -> int | None:
    """A count of bytes as a host gives it, a number or digits; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value) else None


def content_range(response: requests.Response) -> tuple[int, int] | None:
    """First byte and whole size of a 206's `Content-Range`; None where it is none."""
    pattern = r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})"
    match = re.fullmatch(pattern, response.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2])) if match else None


class _Watch:
    """What a body has brought, and whether it was given up for bringing too little."""

    came = 0
    is_slow = False


@contextmanager
def _watched(response: requests.Response, seconds: float) -> Iterator[_Watch]:
    """Break the connection off when less than SLOWEST_BYTES come in WATCH_S, wherever it is being waited for."""
    watch, over, end = _Watch(), threading.Event(), time.monotonic() + seconds

    def look() -> None:
        seen = 0
        while not over.wait(WATCH_S):
            if watch.came - seen < SLOWEST_BYTES or time.monotonic() > end:
                watch.is_slow = True
                with suppress(Exception):
                    response.raw.shutdown()  # what reads from it in the other thread comes to an end
                return
            seen = watch.came

    threading.Thread(target=look, daemon=True).start()
    try:
        yield watch
    finally:
        over.set()


def _in_time(seconds: float, ask: Callable[[], requests.Response]) -> requests.Response:
    """The answer to `ask`, in a thread that is left alone if it takes longer."""
    came: SimpleQueue[tuple[requests.Response | None, BaseException | None]] = SimpleQueue()
    late = threading.Event()

    def work() -> None:
        try:
            response = ask()
        except BaseException as error:
            came.put((None, error))
            return
        came.put((response, None))
        if late.is_set():
            response.close()

    threading.Thread(target=work, daemon=True).start()
    try:
        response, error = came.get(timeout=seconds)
    except Empty:
        late.set()
        raise PassingError(f"no whole answer within {seconds:.0f} s", weight=3) from None
    if response is None:
        raise error or RuntimeError("no answer")
    return response


def host_of(url: str) -> str:
    """The host of an address, as a sentence names it."""
    try:
        return urlparse(url).netloc.rpartition("@")[2] or url
    except ValueError:
        return url


def _reason(error: Exception) -> str:
    """The innermost cause in plain words; those of requests and urllib3 name objects and ports."""
    text = str(error)
    for sign, reason in (
        ("timed out", "timed out"),
        ("refused", "connection refused"),
        ("resolve", "its name is not known here; no network?"),
        ("CERTIFICATE", "its certificate is not trusted"),
        ("IncompleteRead", "before the end"),
        ("unreachable", "no network"),
    ):
        if sign in text:
            return reason
    return "connection lost"


def _retry_after(response: requests.Response) -> float:
    return float(whole_number(response.headers.get("Retry-After")) or 0)
