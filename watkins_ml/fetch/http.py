"""HTTP requests with retries and limits; nothing that a server sends is trusted.

Transient faults are retried with growing waits, any other is one clear sentence; time, bytes and redirects of a
response are limited.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
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
"""To connect, and between two chunks of an answer."""
HEADERS_S = 120.0
"""For all headers of a response, and for a list: a server may send them one character at a time."""
WATCH_S = 30.0
SLOWEST_BYTES = 5_000
"""A body that delivers less in WATCH_S counts as stalled."""
MOST_REDIRECTS = 10
MOST_LIST_BYTES = 4_000_000
"""Of a list of files as JSON; the longest known, of the Hugging Face Hub, has 20 kB."""
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
BLOCK_BYTES = 1 << 20

Result = TypeVar("Result")


class TransientError(Exception):
    """A fault that may be gone at the next attempt; `wait_s` is how long the server asked to wait.

    One that took minutes counts as several, its `weight`.
    """

    def __init__(self, message: str, wait_s: float = 0.0, weight: int = 1):
        super().__init__(message)
        self.wait_s, self.weight = wait_s, weight


class TooLongError(UserError):
    """A body with more bytes than it may have."""


def with_retries(name: str, attempt: Callable[[], Result], progressed: Callable[[], bool] = lambda: False) -> Result:
    """The result of `attempt`, which is called again after a `TransientError`; tries count anew after progress.

    Raises:
        UserError: TRIES faults in a row; the sentence begins with `name`.
    """
    failures = tries = 0
    while True:
        tries += 1
        try:
            return attempt()
        except TransientError as fault:
            if progressed():
                failures, tries = 0, 1
            failures += fault.weight
            if failures >= TRIES:
                raise UserError(
                    f"{name}: {fault}, after {tries} tries; check the network and run the same command again, which "
                    "goes on from here"
                ) from None
            pause_s = FIRST_WAIT_S * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
            time.sleep(min(max(pause_s, fault.wait_s), LONGEST_WAIT_S))


class Bounded(HTTPAdapter):
    """Limits every response: its headers in time, a redirect without its body, JSON of at most MOST_LIST_BYTES.

    Other bodies are left to be read by `chunks` where the request was made with `stream`, else are read like JSON.
    """

    def send(self, request: requests.PreparedRequest, stream: bool = False, *_: Any, **given: Any) -> requests.Response:
        given["timeout"] = TIMEOUT_S
        ask = super().send
        response = _within(HEADERS_S, lambda: ask(request, stream=True, **given))
        if response.is_redirect:
            response.raw.close()
            response._content = b""  # requests would read it to its end
        elif not stream or "json" in response.headers.get("Content-Type", "").lower():
            response._content = b"".join(chunks(response, MOST_LIST_BYTES, HEADERS_S))
        return response


def bounded(session: requests.Session) -> requests.Session:
    """The session with the limits of `Bounded`."""
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
    """One streamed answer of a status in `accepted`; read it by `chunks` and close it.

    Raises:
        TransientError: no connection, a time-out, or a status that says so.
        UserError: any other status, or an address that leads nowhere.
    """
    plain = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of its compressed form
    try:
        session = session or bounded(requests.Session())
        response = session.get(url, headers=plain | dict(headers or {}), stream=True)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TransientError(f"no answer from {host_of(url)} ({_reason(error)})") from None
    except (requests.RequestException, HTTPError, ValueError) as error:  # too many redirects, an address that is none
        raise UserError(f"{url}: {first_line(error)}; the release may have moved, see its page") from None
    if response.status_code in accepted:
        return response
    status = plain_text(f"{response.status_code} {response.reason}")
    wait_s = float(whole_number(response.headers.get("Retry-After")) or 0)
    response.close()
    if response.status_code in TRANSIENT_STATUSES:
        raise TransientError(f"{host_of(url)} answers {status}", wait_s)
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


def chunks(response: requests.Response, most: int, seconds: float = float("inf")) -> Iterator[bytes]:
    """The body of an answer as it comes, undecoded.

    Args:
        seconds: for the whole of it.

    Raises:
        TransientError: the connection broke off, or brings less than SLOWEST_BYTES in WATCH_S.
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
                raise TransientError(f"the connection broke off ({_reason(error)})") from None
            finally:
                if watch.is_slow:
                    raise TransientError(f"{host_of(response.url)} sends almost nothing", weight=3)
            if not block:
                return
            left -= len(block)
            if left < 0:
                raise TooLongError(f"{host_of(response.url)}: sends more than the {most:,} bytes that it may")
            watch.received += len(block)
            yield block


def get_json(name: str, url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON at an address; raises UserError where there is none, after trying again what may pass."""

    def attempt() -> Any:
        with get(url, headers) as response:
            content = b"".join(chunks(response, MOST_LIST_BYTES, HEADERS_S))
        try:
            return json.loads(content)
        except (ValueError, RecursionError):  # also numbers of thousands of digits
            raise TransientError(f"{host_of(url)} answers with no JSON") from None

    return with_retries(name, attempt)


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
    """Bytes received of a body, and whether it was given up because it stalled."""

    received = 0
    is_slow = False


@contextmanager
def _watched(response: requests.Response, seconds: float) -> Iterator[_Watch]:
    """Close the connection when less than SLOWEST_BYTES arrive in WATCH_S, also during a blocking read."""
    watch, over, end = _Watch(), threading.Event(), time.monotonic() + seconds

    def check() -> None:
        seen = 0
        while not over.wait(WATCH_S):
            if watch.received - seen < SLOWEST_BYTES or time.monotonic() > end:
                watch.is_slow = True
                with suppress(Exception):
                    response.raw.shutdown()  # ends the blocking read in the other thread
                return
            seen = watch.received

    threading.Thread(target=check, daemon=True).start()
    try:
        yield watch
    finally:
        over.set()


def _within(seconds: float, ask: Callable[[], requests.Response]) -> requests.Response:
    """The response to `ask`, in a thread that is abandoned if it takes longer."""
    answer: Future[requests.Response] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if not wait([answer], timeout=seconds).done:
        answer.add_done_callback(_close)
        raise TransientError(f"no whole answer within {seconds:.0f} s", weight=3)
    return answer.result()


def _close(late: Future[requests.Response]) -> None:
    if late.exception() is None:
        late.result().close()


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
