"""Asking a server patiently: what may pass is tried again with growing waits, what will not is one clear sentence."""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests

from watkins_ml.errors import UserError, first_line

TRIES = 6
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 120.0
TIMEOUT_S = (15.0, 60.0)
"""To connect, and between two pieces of an answer."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
BLOCK_BYTES = 1 << 20

Result = TypeVar("Result")


class NoRangesError(UserError):
    """The server gives files only whole."""


class PassingError(Exception):
    """A fault that may be gone in a moment; `wait_s` is how long the server asked to be left alone."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


def patiently(name: str, attempt: Callable[[], Result], progressed: Callable[[], bool] = lambda: False) -> Result:
    """The result of `attempt`, which is called again after a `PassingError`; tries count anew after progress.

    Raises:
        UserError: TRIES faults in a row; the sentence begins with `name`.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except PassingError as fault:
            failures = 1 if progressed() else failures + 1
            if failures >= TRIES:
                raise UserError(
                    f"{name}: {fault}, after {TRIES} tries; check the network and run the same command again, which "
                    "goes on from here"
                ) from None
            wait = FIRST_WAIT_S * 2 ** (failures - 1) * random.uniform(0.75, 1.25)
            time.sleep(min(max(wait, fault.wait_s), LONGEST_WAIT_S))


def get(
    url: str,
    headers: Mapping[str, str] | None = None,
    accepted: tuple[int, ...] = (200,),
    session: requests.Session | None = None,
) -> requests.Response:
    """One streamed answer of a status in `accepted`; close it.

    Raises:
        PassingError: no connection, a time-out, or a status that says so.
        UserError: any other status, or an address that leads nowhere.
    """
    plain = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of its compressed form
    try:
        ask = (session or requests).get
        response = ask(url, headers=plain | dict(headers or {}), stream=True, timeout=TIMEOUT_S)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise PassingError(f"no answer from {_host(url)} ({_reason(error)})") from None
    except requests.RequestException as error:  # too many redirects, an address that is none
        raise UserError(f"{url}: {first_line(error)}; the release may have moved, see its page") from None
    if response.status_code in accepted:
        return response
    status = f"{response.status_code} {response.reason}"
    wait_s = _retry_after(response)
    response.close()
    if response.status_code in PASSING:
        raise PassingError(f"{_host(url)} answers {status}", wait_s)
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


def get_json(name: str, url: str, headers: Mapping[str, str] | None = None) -> Any:
    """The JSON at an address; raises UserError where there is none, after trying again what may pass."""

    def attempt() -> Any:
        with get(url, headers) as response:
            try:
                return response.json()
            except ValueError:
                raise PassingError(f"{_host(url)} answers with no JSON") from None
            except requests.RequestException as error:
                raise PassingError(f"the answer of {_host(url)} broke off ({_reason(error)})") from None

    return patiently(name, attempt)


def content_range(response: requests.Response) -> tuple[int, int] | None:
    """First byte and whole size of a 206's `Content-Range`; None where it is none."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2])) if match else None


def broken_off(error: Exception) -> PassingError:
    """What a connection says that was cut while it brought data."""
    return PassingError(f"the connection broke off ({_reason(error)})")


class RangeFile(io.RawIOBase):
    """A file on a server, read and sought like one on the disk, each read by one HTTP range.

    Raises:
        NoRangesError: the server gives none.
        UserError: any fault of `patiently`.
    """

    def __init__(self, name: str, url: str, headers: Mapping[str, str] | None = None):
        super().__init__()
        self.name, self._url, self._headers, self._position = name, url, dict(headers or {}), 0
        self._session = requests.Session()  # its connection stays open for the next of many small ranges
        self.size = self._ask("bytes=0-0")[1]

    def close(self) -> None:
        super().close()
        if hasattr(self, "_session"):
            self._session.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self._position)
        if wanted <= 0:
            return 0
        data, size = self._ask(f"bytes={self._position}-{self._position + wanted - 1}")
        if size != self.size or len(data) != wanted:
            raise UserError(f"{self.name}: changed on the server while it was read; run the same command again")
        buffer[:wanted] = data
        self._position += wanted
        return wanted

    def _ask(self, which: str) -> tuple[bytes, int]:
        def attempt() -> tuple[bytes, int]:
            with get(self._url, self._headers | {"Range": which}, (200, 206), self._session) as response:
                found = content_range(response)
                if response.status_code != 206 or found is None:
                    raise NoRangesError(f"{self.name}: {_host(self._url)} gives no ranges of it")
                try:
                    return response.content, found[1]
                except requests.RequestException as error:
                    raise broken_off(error) from None

        return patiently(self.name, attempt)


def _host(url: str) -> str:
    return requests.utils.urlparse(url).netloc or url


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
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0
