"""No password of an address is printed, kept or sent: the one function that hides it, and the gates that use it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.core.console import out
from watkins_ml.core.errors import first_line
from watkins_ml.core.masking import masked
from watkins_ml.core.text import shown

ADDRESSES = {
    "http://user:SECRET@host:5000": "http://user:***@host:5000",
    "https://SECRET@host/path": "https://***@host/path",
    "HTTP://user:SECRET@host": "HTTP://user:***@host",
    "http://:SECRET@host": "http://:***@host",
    "http://user:SEC@RET@host:5000/a": "http://user:***@host:5000/a",
    "http://user:SEC/RET?a#b@host:5000": "http://user:***@host:5000",
    "postgresql+psycopg://user:SECRET@host:5432/mlflow": "postgresql+psycopg://user:***@host:5432/mlflow",
    "postgresql://user@host/db?sslmode=require&password=SECRET&x=1":
        "postgresql://user@host/db?sslmode=require&password=***&x=1",
    "https://host/file.zip?X-Amz-Signature=SECRET&X-Amz-Security-Token=SECRET&part=2":
        "https://host/file.zip?X-Amz-Signature=***&X-Amz-Security-Token=***&part=2",
}  # fmt: skip
PLAIN = [
    "http://host:5000", "https://host/a/b?c=d#e", "postgresql+psycopg://user@host/database", "sqlite:////a/mlflow.db",
    "models:/walrus@champion", "models:/watkins-baseline/3", "runs/a@b/c", "file:///a@b", "mail me@host.org: now",
    "rec 12:30@site.wav", "s3://bucket/key", "", "https://huggingface.co/datasets/a/b@main",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_passwords_and_tokens_are_hidden_and_the_rest_stays(address):
    assert masked(address) == ADDRESSES[address]
    assert masked(f"API request to {address} failed ('{address}')") == (
        f"API request to {ADDRESSES[address]} failed ('{ADDRESSES[address]}')"
    )
    assert masked(masked(address)) == masked(address)


@pytest.mark.parametrize("text", PLAIN)
def test_what_holds_no_password_stays_as_it_is(text):
    assert masked(text) == text


@given(
    password=st.text(string.ascii_letters + string.digits + "@:/?#%&=+!$()*,;.~-_", min_size=4),
    scheme=st.sampled_from(["http", "https", "postgresql+psycopg", "mysql"]),
    before=st.sampled_from(["", "see ", "'", '("']),
)
def test_no_password_is_left_whatever_it_is_made_of(password, scheme, before):
    text = f"{before}{scheme}://someone:{password}@example.org:5000/x said no"
    assert masked(text) == f"{before}{scheme}://someone:***@example.org:5000/x said no"


def test_what_is_shown_in_a_line_or_a_table_or_an_error_has_none(capsys):
    from rich.table import Table

    address = "http://user:SECRET@host:5000"
    table = Table(address, title=address)
    table.add_row(address)
    out.print(address, f"at {address}")
    out.print(table)
    assert "SECRET" not in (said := capsys.readouterr().out) and said.count("user:***@host") >= 4
    assert shown(address) == first_line(RuntimeError(f"{address}\nmore")) == "http://user:***@host:5000"
