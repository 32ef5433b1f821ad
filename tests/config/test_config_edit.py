"""Changing a file that people edit: what is not changed stays letter by letter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import edit, yamlfile
from relay.config.faults import ConfigError
from tests.config.config_kit import UPSTREAM, write

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"

HAND_MADE = """\
# our relay
upstreams:
- server_name: 'Microsoft 365'   # as in Signify
  tenant_id:   "11111111-2222-4333-8444-555555555555"
  port: 587

  # Exchange takes no more
  limits: {connections: 2, messages_per_minute: 30}   # do not raise
listeners:
    -   bind: 127.0.0.1:25
        allow: [127.0.0.0/8,
                "::1"]
    # the printers
    -   bind: 192.168.1.5:25
        allow:
            - 192.168.1.0/24    # first floor
            - 192.168.2.0/24
log: {level: info}
# the end"""


def data(text: str) -> Any:
    document = yamlfile.parse(text, "test")
    assert document.faults == []
    return document.data


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines that went, and lines that came."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


@pytest.mark.parametrize(
    ("path", "value", "went", "came"),
    [
        (("upstreams", 0, "port"), 2587, ["  port: 587"], ["  port: 2587"]),
        (
            ("upstreams", 0, "server_name"), "Contoso's",
            ["- server_name: 'Microsoft 365'   # as in Signify"],
            ["- server_name: 'Contoso''s'   # as in Signify"],
        ),
        (
            ("upstreams", 0, "tenant_id"), "contoso.com",
            ['  tenant_id:   "11111111-2222-4333-8444-555555555555"'],
            ['  tenant_id:   "contoso.com"'],
        ),
        (
            ("upstreams", 0, "limits", "connections"), 1,
            ["  limits: {connections: 2, messages_per_minute: 30}   # do not raise"],
            ["  limits: {connections: 1, messages_per_minute: 30}   # do not raise"],
        ),
        (
            ("upstreams", 0, "limits", "recipients_per_day"), 5000,
            ["  limits: {connections: 2, messages_per_minute: 30}   # do not raise"],
            ["  limits: {connections: 2, messages_per_minute: 30, recipients_per_day: 5000}   # do not raise"],
        ),
        (("upstreams", 0, "client_secret"), "file:secret", [], ["  client_secret: file:secret"]),
        (("upstreams", 0, "port"), None, ["  port: 587"], []),
        (("upstreams", 0, "certificate"), {"file": "a.pfx", "passphrase": "env:P"}, [],
         ["  certificate:", "    file: a.pfx", "    passphrase: env:P"]),
        (("listeners", 1, "allow", 2), "10.0.0.0/8", [], ["            - 10.0.0.0/8"]),
        (("listeners", 1, "allow", 0), None, ["            - 192.168.1.0/24    # first floor"], []),
        (("listeners", 1, "allow"), ["10.0.0.0/8"],
         ["        allow:", "            - 192.168.1.0/24    # first floor", "            - 192.168.2.0/24"],
         ["        allow: [10.0.0.0/8]"]),
        (("listeners", 0, "allow"), ["127.0.0.0/8"],
         ["        allow: [127.0.0.0/8,", '                "::1"]'], ["        allow: [127.0.0.0/8]"]),
        (("listeners", 2), {"bind": "10.0.0.1:25", "auth": "required"}, [],
         ["    - bind: 10.0.0.1:25", "      auth: required"]),
        (("log", "format"), "json", ["log: {level: info}"], ["log: {level: info, format: json}"]),
        (("spool", "url"), "sqlite:////var/lib/relay/spool.db", [],
         ["spool:", "  url: sqlite:////var/lib/relay/spool.db"]),
        (("log",), None, ["log: {level: info}"], []),
        (("log", "level"), None, ["log: {level: info}"], ["log: {}"]),
        (("nothing", "here"), None, [], []),
    ],
)  # fmt: skip
def test_only_what_changes_is_written(
    path: edit.KeyPath, value: object, went: list[str], came: list[str]
) -> None:
    """Comments, quotes, blanks, indentation and the missing last line break stay as they were."""
    after = edit.change(HAND_MADE, {path: value})
    assert changed_lines(HAND_MADE, after) == (went, came)
    assert after.splitlines()[0] == "# our relay"


def test_a_listener_taken_out_leaves_its_neighbours() -> None:
    """The lines of the member go, the comment above it stays."""
    first = edit.change(HAND_MADE, {("listeners", 0): None})
    assert data(first)["listeners"][0]["bind"] == "192.168.1.5:25"
    assert "# the printers" in first
    second = edit.change(HAND_MADE, {("listeners", 1): None})
    assert len(data(second)["listeners"]) == 1
    assert "log: {level: info}" in second


def test_the_first_key_behind_a_dash_can_go() -> None:
    """What follows takes its place behind the dash."""
    after = edit.change(HAND_MADE, {("upstreams", 0, "server_name"): None})
    assert list(data(after)["upstreams"][0]) == ["tenant_id", "port", "limits"]


def test_every_key_of_the_example_can_be_changed() -> None:
    """One value after the other; all other lines, comments included, stay."""
    text = EXAMPLE.read_text()
    count = 0
    for path in _scalars(data(text)):
        after = edit.change(text, {path: "x" if path[-1] != "port" else 25})
        went, came = changed_lines(text, after)
        assert (len(went), len(came)) in ((1, 1), (1, 0), (0, 1), (0, 0)), path
        assert len(after.splitlines()) == len(text.splitlines())
        count += 1
    assert count > 40


def test_the_example_takes_new_keys_and_loses_old_ones() -> None:
    """Its comments stand between dash and key, which a dump by a library would move."""
    text = EXAMPLE.read_text()
    after = edit.change(
        text,
        {
            ("upstreams", 0, "client_secret_expires"): "2028-11-01",
            ("upstreams", 0, "server_name"): None,
            ("postmaster",): "it@contoso.com",
            ("listeners", 0, "tls", "minimum"): None,
            ("listeners", 1, "bind"): "10.0.0.5:25",
        },
    )
    values = data(after)
    assert values["upstreams"][0]["client_secret_expires"] == "2028-11-01"
    assert "server_name" not in values["upstreams"][0]
    assert values["listeners"][0]["tls"] == {"mode": "none"}
    assert values["listeners"][1] == {"bind": "10.0.0.5:25"}
    assert [line for line in text.splitlines() if "#" in line and line not in after.splitlines()] == []


def test_an_empty_text_is_a_beginning() -> None:
    """Whole sections can be made from nothing, and from comments alone."""
    changes: dict[edit.KeyPath, object] = {
        ("upstreams", 0, "server_name"): "Microsoft 365",
        ("upstreams", 0, "port"): 587,
        ("listeners",): [{"bind": "127.0.0.1:25", "allow": ["127.0.0.0/8", "::1"]}],
        ("spool", "retry"): ["1m", "2m"],
    }
    text = edit.change("", changes)
    assert text == (
        "upstreams:\n  - server_name: Microsoft 365\n    port: 587\n"
        'listeners:\n  - bind: 127.0.0.1:25\n    allow: [127.0.0.0/8, "::1"]\n'
        "spool:\n  retry: [1m, 2m]\n"
    )
    assert edit.change("# mine\n", changes) == "# mine\n" + text
    assert data(edit.change("---\n# mine\n", changes)) == data(text)


def test_line_ends_and_byte_order_mark_stay() -> None:
    """A file from Windows stays one."""
    text = "\ufefflog:\r\n  level: info # why\r\nweb:\r\n  bind: 127.0.0.1:8025\r\n"
    after = edit.change(
        text, {("log", "level"): "debug", ("log", "format"): "json", ("postmaster",): "a@b.c"}
    )
    assert after == (
        "\ufefflog:\r\n  level: debug # why\r\n  format: json\r\nweb:\r\n  bind: 127.0.0.1:8025\r\n"
        "postmaster: a@b.c\r\n"
    )


def test_forms_change_into_one_another() -> None:
    """A list on one line becomes sections and back; comments behind the key stay."""
    text = "senders: []  # none yet\nalerts:  # soon\n  webhook: x\n  command: y\npostmaster:\n"
    rules = [{"match": "*@a.local", "from": "keep"}, {"match": "*"}]
    more = edit.change(text, {("senders",): rules, ("alerts",): None, ("postmaster",): "it@contoso.com"})
    assert data(more) == {
        "senders": [{"match": "*@a.local", "from": "keep"}, {"match": "*"}], "postmaster": "it@contoso.com",
    }  # fmt: skip
    assert more.startswith("senders:  # none yet\n  - match:")
    assert data(edit.change(more, {("senders",): []})) == {"senders": [], "postmaster": "it@contoso.com"}
    swapped = edit.change(text, {("alerts",): {"webhook": "z"}})
    assert "alerts:  # soon\n  webhook: z\n" in swapped
    assert "alerts: null  # soon\n" in edit.change(text, {("alerts",): {}}).replace("{}", "null")


def test_anchors_are_followed_and_never_changed_for_others() -> None:
    """An alias is written out where it must differ; what others refer to cannot be changed here."""
    text = (
        "x: &l {connections: 2, messages_per_minute: 30}\n"
        "upstreams:\n  - limits: *l\n  - limits: *l\n  - &base\n    port: 587\n  - <<: *base\n    timeout: 9\n"
    )
    after = edit.change(text, {("upstreams", 1, "limits", "connections"): 1, ("upstreams", 3, "port"): 25})
    values = data(after)
    assert values["upstreams"][0]["limits"] == {"connections": "2", "messages_per_minute": "30"}
    assert values["upstreams"][1]["limits"] == {"connections": "1", "messages_per_minute": "30"}
    assert [one.get("port") for one in values["upstreams"][2:]] == ["587", "25"]
    for path in (("x", "connections"), ("upstreams", 2, "port"), ("x",)):
        with pytest.raises(ConfigError, match="by hand"):
            edit.change(text, {path: "7"})


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("log: {level: info}\nlog: {level: debug}\n", ("log", "level"), "given twice"),
        ("log: [\n", ("log", "level"), "not valid YAML"),
        ("- a\n", ("log", "level"), "holds no keys"),
        ("log: info\n", ("log", "level"), "holds no keys"),
        ("listeners: []\n", ("listeners", 1, "bind"), "not the next one"),
        ("a: 1\n---\nb: 2\n", ("a",), "second document"),
    ],
)
def test_what_cannot_be_changed_is_said(text: str, path: edit.KeyPath, says: str) -> None:
    """A clear error, with where it is; never a guess."""
    with pytest.raises(ConfigError, match=says):
        edit.change(text, {path: "x"})


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=30)


@given(
    value=TEXTS,
    style=st.sampled_from(["plain: x", "plain: 'x'", 'plain: "x"', "plain:", "plain: |\n  x\n  y"]),
)
def test_any_text_is_read_back_as_it_was(value: str, style: str) -> None:
    """Colons, hashes, quotes, blanks, words that YAML takes for switches: all are texts afterwards."""
    before = f"# head\n{style}\nlist: [a]\nother: 1 # one\n"
    after = edit.change(before, {("plain",): value, ("list", 1): value, ("new",): value})
    assert data(after) == {"plain": value, "list": ["a", value], "other": "1", "new": value}
    assert "other: 1 # one\n" in after


def test_store_checks_the_whole_first(tmp_path: Path) -> None:
    """Every fault is told, with this file's name, and the old file stays."""
    file = write(tmp_path, UPSTREAM.replace("env:SECRET", "s3cret-value"))
    before = file.read_text()
    with pytest.raises(ConfigError) as caught:
        edit.store(file, edit.change(before, {("upstreams", 0, "port"): 0, ("log", "level"): "loud"}))
    assert [fault.path for fault in caught.value.faults] == ["upstreams[0].port", "log.level"]
    assert {fault.source for fault in caught.value.faults} == {str(file)}
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_store_keeps_mode_and_what_was_there(tmp_path: Path) -> None:
    """A new file is for its owner alone; an old one keeps its mode; one copy of what was is kept."""
    file, text = tmp_path / "config.yaml", UPSTREAM.replace("env:SECRET", "s3cret-value")
    edit.store(file, text)
    assert (file.stat().st_mode & 0o777, file.read_text()) == (0o600, text)
    file.chmod(0o640)
    edit.store(file, edit.change(text, {("log", "level"): "debug"}))
    backup = tmp_path / "config.yaml.bak"
    assert backup.read_text() == text
    assert {one.stat().st_mode & 0o777 for one in (file, backup)} == {0o640}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config.yaml", "config.yaml.bak"]


def test_store_writes_through_a_link(tmp_path: Path) -> None:
    """The link stays a link, and files that the configuration names are looked for beside it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "secret").write_text("s3cret-value")
    real = write(tmp_path / "real", UPSTREAM, "c.yaml")
    link = tmp_path / "config.yaml"
    link.symlink_to(real)
    edit.store(link, edit.change(edit.read(link), {("upstreams", 0, "client_secret"): "file:secret"}))
    assert link.is_symlink()
    assert "file:secret" in real.read_text()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """An error with a remedy, and the file as it was."""
    file = tmp_path / "missing" / "config.yaml"
    with pytest.raises(ConfigError, match="cannot be written"):
        edit.store(file, "log: {level: info}\n", validate=False)
    with pytest.raises(ConfigError, match="cannot be read"):
        edit.read(file)
    assert os.listdir(tmp_path) == []


def _scalars(value: Any, path: edit.KeyPath = ()) -> list[edit.KeyPath]:
    if isinstance(value, dict):
        return [one for key, inner in value.items() for one in _scalars(inner, (*path, key))]
    if isinstance(value, list):
        return [one for number, inner in enumerate(value) for one in _scalars(inner, (*path, number))]
    return [path]
