"""Removes passwords from addresses: nothing that is printed, stored or sent may contain one."""

from __future__ import annotations

import re

HIDDEN = "***"
_USER = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/?#:@'\"<>]*)(:[^\s'\"<>]*)?@", re.IGNORECASE)
"""Scheme, user and password of an address. A password may hold what should have been quoted, also @ and /."""
_QUERY = re.compile(
    r"([?&;][\w.-]*(?:passw(?:or)?d|pwd|secret|token|credential|signature|api_?key|sig)[\w.-]*=)[^\s&;#'\"<>]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """An address, or a text with addresses in it, with `***` for each password, and for each user that may be a token.

    A user's name is kept where a password follows it, and in the address of a database.
    """
    if "://" in text:  # else the pattern tries every letter of a long text, such as a picture in base64
        text = _USER.sub(_hide, text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)


def _hide(found: re.Match) -> str:
    scheme, user, password = found.groups()
    if password is not None:
        return f"{scheme}://{user}:{HIDDEN}@"
    is_token = scheme.lower() in ("http", "https") and user
    return f"{scheme}://{HIDDEN if is_token else user}@"
