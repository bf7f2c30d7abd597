"""Who may come in: addresses, keys and their rights, names of the host, other sites' pages, TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import stat
import subprocess
import sys

import httpx
import pytest

from engineworks.errors import DataError
from engineworks.server import keys
from tests import servers

PHOTO = servers.picture()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return servers.null_engine(tmp_path_factory.mktemp("null"))


@pytest.fixture(scope="module")
def secured(engine, tmp_path_factory):
    """A server with keys, over TLS, and the keys by name."""
    folder = tmp_path_factory.mktemp("secured")
    file = folder / "keys.json"
    made = {
        "camera": keys.add(file, "camera", ("infer",), 0),
        "prometheus": keys.add(file, "prometheus", ("metrics",), 0),
        "boss": keys.add(file, "boss", ("infer", "metrics", "admin"), 0),
        "slow": keys.add(file, "slow", ("infer",), 2),
    }
    certificate, key = tls_files(folder)
    with servers.serving(
        folder, f"nothing={engine}", "--host", "0.0.0.0", "--keys", str(file),  # noqa: S104
        "--tls-cert", str(certificate), "--tls-key", str(key),
    ) as running:  # fmt: skip
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        context = ssl.create_default_context(cafile=str(certificate))
        with running.client(verify=context) as client:
            yield client, made, file


def tls_files(folder):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_only_live_and_ready_are_open(secured):
    client, _, _ = secured
    spec = client.get("/health/live")
    assert spec.status_code == 200
    for path in ("/health/ready", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    for path in ("/", "/page.js", "/metrics", "/openapi.json", "/v2", "/v2/models/nothing", "/x"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert "Basic" in answer.headers["www-authenticate"]
    for path in ("/classify", "/v2/models/nothing/infer", "/v2/repository/index",
                 "/admin/models/nothing/swap", "//admin/models/nothing/swap"):  # fmt: skip
        assert client.post(path, content=PHOTO).status_code == 401, path


def test_a_key_opens_what_it_has_the_right_for(secured):
    client, made, _ = secured
    can = {
        name: (
            client.post("/classify", content=PHOTO, headers=bearer(made[name])).status_code,
            client.get("/metrics", headers=bearer(made[name])).status_code,
            client.post(
                "/v2/repository/models/nothing/load", headers=bearer(made[name])
            ).status_code,
        )
        for name in ("camera", "prometheus", "boss")
    }
    assert can == {
        "camera": (200, 403, 403),
        "prometheus": (403, 200, 403),
        "boss": (200, 200, 200),
    }


def test_a_key_comes_in_three_ways_and_in_no_other(secured):
    client, made, _ = secured
    key = made["camera"]
    for headers in (bearer(key), {"X-API-Key": key}):
        assert client.get("/v2", headers=headers).status_code == 200
    assert client.get("/v2", auth=("anybody", key)).status_code == 200  # a browser asks for these
    for headers in (bearer(key + "x"), bearer(key[:-1]), bearer("a"), {"Authorization": key},
                    {"Authorization": "Basic !!"}, {"X-API-Key": ""}):  # fmt: skip
        assert client.get("/v2", headers=headers).status_code == 401
    assert client.get(f"/v2?key={key}").status_code == 401


def test_a_key_is_held_to_its_rate(secured):
    client, made, _ = secured
    codes = [client.get("/v2", headers=bearer(made["slow"])).status_code for _ in range(6)]
    assert codes[:2] == [200, 200]
    assert 429 in codes
    answer = client.get("/v2", headers=bearer(made["slow"]))
    assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1
    assert client.get("/v2", headers=bearer(made["camera"])).status_code == 200


def test_the_file_holds_no_key_and_only_its_owner_reads_it(secured):
    _, made, file = secured
    text = file.read_text()
    assert not any(key in text for key in made.values())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(DataError, match="has a key 'boss' already"):
        keys.add(file, "boss", ("infer",), 0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '[{"name": 1}]', '[{"name": "a"}]', "[7]"])
def test_a_file_that_is_none_of_keys_is_refused(tmp_path, text):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(DataError, match=r"keys\.json"):
        keys.read(tmp_path / "keys.json")


def test_the_command_makes_a_key_that_opens(tmp_path):
    file = tmp_path / "keys.json"
    done = subprocess.run(
        [sys.executable, "-m", "engineworks.cli", "serve-key", "me", "--keys", str(file),
         "--rights", "infer,metrics", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ring = keys.KeyRing(keys.read(file))
    found = ring.find({b"x-api-key": json.loads(done.stdout)["key"].encode()})
    assert found is not None
    assert (found.name, found.rights) == ("me", ("infer", "metrics"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_an_open_address_without_keys_is_refused(tmp_path, engine, host):
    done = servers.refused(tmp_path, str(engine), "--host", host, "--port", "0")
    assert done.returncode == 2
    assert "serve-key" in done.stderr
    assert "--no-auth" in done.stderr


@pytest.fixture(scope="module")
def local(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    with servers.serving(folder, f"nothing={engine}") as running, running.client() as client:
        yield client


def test_without_keys_no_other_name_leads_here(local):
    """A page elsewhere can have its own name resolve to 127.0.0.1."""
    assert local.get("/v2", headers={"Host": "evil.example:8000"}).status_code == 421
    assert local.get("/v2", headers={"Host": "localhost:1"}).status_code == 200
    assert local.get("/v2", headers={"Host": "[::1]:1"}).status_code == 200


def test_pages_of_other_sites_may_not_ask(local):
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        answer = local.post("/classify", content=PHOTO, headers={"Origin": origin})
        assert answer.status_code == 403, origin
        assert "access-control-allow-origin" not in answer.headers
    own = str(local.base_url).rstrip("/")
    assert local.post("/classify", content=PHOTO, headers={"Origin": own}).status_code == 200
    asked = local.options(
        "/classify",
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert asked.status_code in (403, 405)
    assert "access-control-allow-origin" not in asked.headers


def test_a_unix_socket_is_its_owners(tmp_path, engine):
    path = tmp_path / "s"
    with servers.serving(tmp_path, str(engine), "--uds", str(path), port=False):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://any.name") as client:
            assert client.post("/classify", content=PHOTO).status_code == 200
