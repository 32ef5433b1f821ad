"""An address of a database never shows its password, however it was written."""

from __future__ import annotations

import pytest

from relay.dburl import form_fault, has_password, names_database, parameters, shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@a:1,b:2/db", "postgresql://u:***@a:1,b:2/db"),
        ("postgresql://u:p%40w:x@a/db?sslmode=require", "postgresql://u:***@a/db?sslmode=require"),
        ("postgresql://u@a/db?password=pw", "postgresql://u@a/db?password=***"),
        ("postgresql:///db?host=/run&password=pw&x=rest", "postgresql:///db?host=/run&password=***"),
        ("postgresql://u@a/db?sslpassword=pw", "postgresql://u@a/db?sslpassword=***"),
        ("postgresql://u@a/db", "postgresql://u@a/db"),
        ("postgresql://u@[::1]:5432,%2Frun/db", "postgresql://u@[::1]:5432,%2Frun/db"),
        ("sqlite:////var/lib/relay/spool.db", "sqlite:////var/lib/relay/spool.db"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    assert shown_url(url) == shown
    assert has_password(url) is (url != shown)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush/x@h/db",
        "postgresql://u:hush?x@h/db",
        "postgresql://u:hush#x@h/db",
        "postgresql://u:hush@x@h/db",
        "postgresql://u:5432/hush@h/db",
        "postgresql://u:hush%zz@h/db",
        "postgresql://u@h/db?password=hush&x",
        "postgresql://u@h/db?password=hush=x",
        "postgresql://u@h/db?password=hush@x",
        "postgresql://u@h/db?password=hush%zz",
    ],
)
def test_of_an_address_that_could_be_read_in_two_ways_nothing_is_shown(url):
    """A password with signs that end it for one reader and not for the other."""
    assert form_fault(url)
    assert "hush" not in form_fault(url)
    assert shown_url(url) == "postgresql://***"


def test_a_service_of_libpq_may_name_the_database():
    assert names_database("postgresql:///?service=relay")
    assert names_database("postgresql://h/db")
    assert not names_database("postgresql://h/?sslmode=require")
    assert parameters("postgresql://h/db?sslmode=require&host=a") == ["sslmode", "host"]
