"""The class folders on Kaggle: one zip, found and opened by Kaggle's own client (extra `kaggle`)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import requests

from watkins_ml.core.errors import UserError, first_line, plain
from watkins_ml.fetch.download import Remote
from watkins_ml.fetch.http import TRANSIENT_STATUSES, TransientError, bounded, whole_number, with_retries
from watkins_ml.fetch.layout import Offer
from watkins_ml.fetch.release import Release
from watkins_ml.fetch.zips import offer_of_zip

OWNER, DATASET = "shreyj1729", "best-of-watkins-marine-mammal-sound-database"
PAGE = f"https://www.kaggle.com/datasets/{OWNER}/{DATASET}"
ACCOUNT = (
    "Kaggle asks for an account: make a token on https://www.kaggle.com/settings (API, Create New Token), put it into "
    "KAGGLE_API_TOKEN, and run the same command again"
)


def release() -> Release:
    return Release(f"kaggle: {OWNER}/{DATASET}", PAGE, _look)


def _look() -> Offer:
    try:
        from kagglehub.clients import build_kaggle_client
        from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest, ApiGetDatasetRequest
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise UserError(f"{package} is missing, which fetch kaggle needs; pip install 'watkins-ml[kaggle]'") from None
    about = ApiGetDatasetRequest()
    about.owner_slug, about.dataset_slug = OWNER, DATASET
    version = _call(build_kaggle_client, lambda api: int(api.get_dataset(about).current_version_number))
    wanted = ApiDownloadDatasetRequest()
    wanted.owner_slug, wanted.dataset_slug, wanted.dataset_version_number = OWNER, DATASET, version

    def signed() -> tuple[str, requests.structures.CaseInsensitiveDict]:
        with _call(build_kaggle_client, lambda api: api.download_dataset(wanted)) as answer:
            return answer.url, answer.headers

    headers = signed()[1]
    size = whole_number(headers.get("Content-Length"))
    remote = Remote(f"{DATASET}.zip", lambda: signed()[0], size, _md5(headers))
    return offer_of_zip(remote, f"version {version}")


def _call(build: Callable[[], Any], ask: Callable[[Any], Any]) -> Any:
    """What Kaggle answers; its client is made anew, as one session serves one request."""

    def attempt() -> Any:
        try:
            client = build()
        except ValueError as error:  # of credentials that cannot be read
            raise UserError(f"Kaggle: {first_line(error)}") from None
        try:
            with client:
                bounded(client.http_client()._session)  # it has no bounds of its own
                return ask(client.datasets.dataset_api_client)
        except (TransientError, UserError):
            raise
        except requests.HTTPError as error:
            status = error.response.status_code
            if status in TRANSIENT_STATUSES:
                raise TransientError(f"it answers {status}") from None
            if status in (401, 403):
                raise UserError(ACCOUNT) from None
            raise UserError(f"{PAGE}: {first_line(error)}; the release may have moved, see its page") from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise TransientError(f"no answer ({type(error).__name__})") from None
        except Exception as error:  # whatever its client makes of an answer that is none of its own
            raise UserError(f"Kaggle: answers otherwise than expected ({first_line(error)}); see {PAGE}") from None

    return with_retries("Kaggle", attempt)


def _md5(headers: Any) -> str | None:
    """The checksum that Google's storage, where Kaggle keeps its files, puts into `x-goog-hash`."""
    for one in headers.get("x-goog-hash", "").split(","):
        kind, _, value = one.strip().partition("=")
        if kind == "md5":
            try:
                return "md5:" + base64.b64decode(value, validate=True).hex()
            except ValueError:
                raise UserError(f"Kaggle's storage gives {plain(value, 40)!r} as checksum; try again later") from None
    return None
