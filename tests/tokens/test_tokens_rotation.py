"""A certificate of relay's own: made, shown, and replaced at the registration, wherever the last try broke off."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from relay.clock import SystemClock
from relay.errors import TokenError
from relay.settings import Certificate, Rotation, Secret, Upstream
from relay.tokens import keypair, rotation
from relay.tokens.away import away
from relay.tokens.contract import Resource
from relay.tokens.credentials import KeyPair, load_certificate
from relay.tokens.rotation import Rotated, advance, due
from tests.tokens.fake_entra_server import Make, make_upstream
from tests.tokens.fake_registration import OBJECT_ID, FakeRegistration

DAY = 86400.0


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    """Made once: an RSA key of 3072 bits takes its time."""
    return keypair.make("relay on test", 40 * DAY, time.time())


class Host:
    """A relay's host: its certificate file and the upstream that names it."""

    def __init__(
        self, folder: Path, pair: KeyPair, fake: FakeRegistration, phrase: str | None = None
    ) -> None:
        self.file = folder / "app.pem"
        keypair.write_private(self.file, keypair.to_pem(pair, phrase))
        fake.register(pair.leaf)
        self.fake = fake
        self.object_id: str | None = OBJECT_ID
        self.remove_old = False
        self.phrase = Secret(phrase) if phrase else None

    @property
    def credential(self) -> Certificate:
        return Certificate(self.file, self.phrase, Rotation(True, 365 * DAY, self.object_id, self.remove_old))

    @property
    def upstream(self) -> Upstream:
        fake = self.fake
        return make_upstream(
            fake.authority, fake.ca_file, credential=self.credential, graph_url=fake.graph_url
        )

    async def advance(self) -> Rotated:
        return await away(lambda: advance(self.upstream, SystemClock()), "test")

    async def refused(self) -> TokenError:
        with pytest.raises(TokenError) as caught:
            await self.advance()
        return caught.value

    def thumbprint(self) -> str:
        return keypair.facts(load_certificate(self.credential).leaf).sha256


@pytest.fixture
def host(tmp_path: Path, pair: KeyPair, registration: FakeRegistration) -> Host:
    return Host(tmp_path, pair, registration)


def test_a_certificate_made_here_is_what_entra_takes(tmp_path: Path) -> None:
    """RSA 3072, self-signed, for signatures; the private key in a file that nobody else may read."""
    made = keypair.make("relay on host-1", 90 * DAY, 1_790_000_000.0)
    file = tmp_path / "app.pem"
    keypair.write_private(file, keypair.to_pem(made), new=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert isinstance(made.key, RSAPrivateKey) and made.key.key_size == 3072
    made.leaf.verify_directly_issued_by(made.leaf)
    known = keypair.facts(load_certificate(Certificate(file, None)).leaf)
    assert known.subject == "CN=relay on host-1"
    assert (known.begins, known.ends) == (1_790_000_000 - 300, 1_790_000_000 + 90 * DAY)
    assert (len(known.sha1), len(known.sha256)) == (40, 64)
    with pytest.raises(FileExistsError):
        keypair.write_private(file, b"another", new=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["app.pem"]


@pytest.mark.parametrize(
    ("life", "left", "expected"),
    [(365, 123, False), (365, 121, True), (60, 31, False), (60, 29, True), (20, 11, False), (20, 9, True)],
)
def test_when_it_is_time(life: float, left: float, expected: bool) -> None:
    """A third of its life, at least 30 days, but never more than half."""
    known = keypair.CertificateFacts("CN=x", "", "", 0.0, life * DAY)
    assert due(known, (life - left) * DAY) is expected


async def test_the_new_one_is_registered_tried_and_put_in_place(host: Host, make: Make) -> None:
    """Without any permission: the Object ID is configured, and the present key vouches for the new one."""
    host.fake.roles = ["Mail.Send"]
    before = host.thumbprint()
    done = await host.advance()
    assert host.thumbprint() == done.new.sha256 != before == done.old.sha256
    assert host.fake.graph_calls == ["POST addKey"]
    assert len(host.fake.certificates) == 2
    assert stat.S_IMODE(host.file.stat().st_mode) == 0o600
    assert done.new.ends - done.new.begins == pytest.approx(365 * DAY, abs=600)
    assert {one.name for one in host.file.parent.glob("app.pem*")} == {
        "app.pem",
        "app.pem.lock",
        "app.pem.old",
    }
    tokens = make(credential=host.credential, authority=host.fake.authority, ca_file=host.fake.ca_file)
    assert (await tokens.token(Resource.SMTP)).value


async def test_the_object_id_is_read_where_that_is_allowed(host: Host) -> None:
    """And the old one is taken out, if wanted."""
    host.object_id, host.remove_old = None, True
    host.fake.roles = ["Application.Read.All"]
    done = await host.advance()
    assert done.removed
    assert [keypair.facts(one).sha256 for one in host.fake.certificates.values()] == [host.thumbprint()]
    assert not host.file.with_name("app.pem.old").exists()


async def test_without_object_id_and_permission_it_says_what_to_set(host: Host) -> None:
    host.object_id = None
    host.fake.roles = ["Mail.Send"]
    before = host.thumbprint()
    error = await host.refused()
    assert (error.code, error.temporary) == ("object-id-unknown", False)
    assert "certificate: object_id" in error.remedy
    assert host.thumbprint() == before


async def test_a_lag_at_entra_is_waited_for(host: Host) -> None:
    """The new key is registered once and the old one used, until the new one has really logged in."""
    host.fake.pending = 2
    before = host.thumbprint()
    for _ in range(2):
        assert (await host.refused()).code == "rotation-pending"
        assert host.thumbprint() == before
    assert (await host.advance()).new.sha256 == host.thumbprint()
    assert host.fake.graph_calls.count("POST addKey") == 1


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("when", range(1, 14))
async def test_a_crash_at_any_write_leaves_a_credential_that_works(
    host: Host, make: Make, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """Cut off before each change on disk and at Graph in turn; then a token comes, and the next try finishes."""
    steps = 0

    def dying(work: object) -> object:
        def step(*args: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps == when:
                raise Crash
            return work(*args, **more)  # type: ignore[operator]

        return step

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "write_private", dying(keypair.write_private))
        patch.setattr(rotation.Directory, "add_key", dying(rotation.Directory.add_key))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(rotation._Turn, "_remove", dying(rotation._Turn._remove))
        with pytest.raises(RuntimeError, match="crashed"):
            await away(lambda: _run(host), "test")
    tokens = make(credential=host.credential, authority=host.fake.authority, ca_file=host.fake.ca_file)
    assert (await tokens.token(Resource.SMTP)).value
    await host.advance()
    assert host.thumbprint() in {keypair.facts(one).sha256 for one in host.fake.certificates.values()}
    assert not host.file.with_name("app.pem.next").exists()


def _run(host: Host) -> None:
    try:
        advance(host.upstream, SystemClock())
    except Crash as crash:
        raise RuntimeError("crashed") from crash


async def test_only_one_process_rotates(host: Host) -> None:
    """The other one is told, and changes nothing."""
    from relay.tokens.filelock import locked

    with locked(host.file, 1.0):
        assert (await host.refused()).code == "rotation-busy"
    assert host.fake.graph_calls == []


async def test_an_encrypted_key_stays_encrypted(
    tmp_path: Path, pair: KeyPair, registration: FakeRegistration
) -> None:
    host = Host(tmp_path, pair, registration, "pässphrase")
    await host.advance()
    assert b"ENCRYPTED PRIVATE KEY" in host.file.read_bytes()
    assert b"ENCRYPTED PRIVATE KEY" in host.file.with_name("app.pem.old").read_bytes()


@pytest.mark.parametrize(("status", "code"), [(503, "directory-unreachable"), (400, "directory-refused")])
async def test_graph_that_fails_changes_nothing(host: Host, status: int, code: str) -> None:
    host.fake.graph_fault = status
    before = host.thumbprint()
    assert (await host.refused()).code == code
    assert host.thumbprint() == before
    host.fake.graph_fault = None
    assert (await host.advance()).old.sha256 == before


async def test_an_unknown_certificate_is_named_by_its_thumbprint(host: Host, make: Make) -> None:
    """What an administrator compares with the admin center's column."""
    host.fake.certificates.clear()
    tokens = make(credential=host.credential, authority=host.fake.authority, ca_file=host.fake.ca_file)
    with pytest.raises(TokenError) as caught:
        await tokens.token(Resource.SMTP)
    assert caught.value.code == "certificate-unknown"
    assert keypair.facts(load_certificate(host.credential).leaf).sha1 in caught.value.remedy
