"""papaya-chat through TLS, and somebody in the middle."""

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from standin import KEY, StandIn

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two of them, each (PEM file, DER)."""
    made = []
    for name in ("server", "middle"):
        path = tmp_path_factory.mktemp(name) / "both.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
            + ["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
            + ["-keyout", path, "-out", path.with_suffix(".crt")],
            check=True,
            capture_output=True,
        )
        pem = path.with_suffix(".crt").read_text()
        path.write_text(path.read_text() + pem)
        made.append((path, ssl.PEM_cert_to_DER_cert(pem)))
    return made


class Door:
    """Terminates TLS and passes the inside on; tells plain logins to use TLS."""

    def __init__(self, port, pem, versions=None):
        self._target = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        if versions:
            self._context.maximum_version = versions
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.seen = b""  # everything that went over the wire to us
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                conn, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(conn,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, conn):
        conn.settimeout(5)
        with conn, suppress(OSError):
            first = conn.recv(1, socket.MSG_PEEK)
            if first != b"\x16":
                conn.recv(1000)
                conn.sendall(b"ERR tls this port speaks TLS\n")
                return
            with self._context.wrap_socket(conn, server_side=True) as outside:
                inside = socket.create_connection(("127.0.0.1", self._target))
                with inside:
                    self._pass_on(outside, inside)

    def _pass_on(self, outside, inside):
        back = threading.Thread(target=self._copy, args=(inside, outside))
        back.start()
        with suppress(OSError):
            self._copy(outside, inside)
            inside.shutdown(socket.SHUT_WR)
        back.join(5)
        with suppress(OSError):
            outside.unwrap()

    def _copy(self, source, target):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)


@pytest.fixture
def doors():
    opened = []

    def door(*args, **how):
        opened.append(Door(*args, **how))
        return opened[-1]

    yield door
    for door in opened:
        door.stop()


@pytest.fixture
def chat(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    key_file.chmod(0o600)

    def chat(port, *args, say="hi\n"):
        where = ["--port", str(port), "--key-file", str(key_file), "--name", "bot"]
        done = subprocess.run(
            [sys.executable, "-m", "papaya_pool.chat", *where, *args],
            input=say.encode(),
            capture_output=True,
            cwd=ROOT,
            timeout=20,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return chat


def test_on_loopback_it_talks_plain_and_tls_when_it_is_told_to(certificates, doors, chat):
    pem, der = certificates[0]
    with StandIn() as server:
        server.certificate = der
        lines = [f"line {n}" for n in range(3000)]
        code, out, err = chat(doors(server.port, pem).port, say="\n".join(lines))
        assert (code, err) == (0, "")
        assert server.texts() == lines
        assert out.count("\n") == 3000


def test_who_sits_in_the_middle_can_neither_log_in_nor_be_believed(
    certificates, doors, chat
):
    (pem, der), (middle, _) = certificates
    with StandIn() as server:
        server.certificate = der
        honest = doors(server.port, pem)
        relay = doors(server.port, middle)
        assert chat(honest.port)[0] == 0
        code, _, err = chat(relay.port, say="secret\n")
        assert (code, err.count("\n")) == (77, 1)
        server.certificate = None  # it strips the line from what it relays
        assert chat(relay.port, say="secret\n")[0] == 77
        assert server.texts() == ["hi"]


def test_tls_older_than_1_3_is_not_spoken(certificates, doors, chat):
    pem, der = certificates[0]
    with StandIn() as server:
        server.certificate = der
        door = doors(server.port, pem, versions=ssl.TLSVersion.TLSv1_2)
        code, _, err = chat(door.port)
        assert (code, server.log) == (69, [])
        assert "TLS failed" in err


def test_plain_means_plain(certificates, doors, chat):
    with StandIn() as server:
        code, _, err = chat(doors(server.port, certificates[0][0]).port, "--plain")
        assert (code, "this port speaks TLS" in err) == (77, True)
