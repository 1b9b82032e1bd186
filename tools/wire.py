"""The tools' own wire code: both dialects' logins, written from the design alone.

It shares no code with papaya_pool, so that what both believe can be wrong in one
of them only.  Sockets never block; who owns one polls it and feeds what came.

Failure: Refused if the server said ERR.
Not here: what a member sends and gets afterwards.
"""

import hashlib
import hmac
import secrets
import socket


class Refused(Exception):
    """The server answered ERR; the code is its only argument."""


def connect(port, rcvbuf=0):
    """A connection under way; it is writable when it stands."""
    conn = socket.socket()
    conn.setblocking(False)
    if rcvbuf:
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    conn.connect_ex(("127.0.0.1", port))
    return conn


class NativeLogin:
    """PAPAYA/2: a line each way, then a proof each way."""

    def __init__(self, key, name, options="last=0"):
        self._secret = hashlib.sha256(key).hexdigest().encode()
        self._hello = b"PAPAYA/2 %b %b" % (name.encode(), secrets.token_hex(16).encode())
        if options:
            self._hello += b" " + options.encode()
        self._theirs = b""
        self._held = b""
        self.to_send = self._hello + b"\n"
        self.head = self.log = None  # what the OK line says

    def feed(self, data):
        """None while the login goes on; else what came behind it, already the stream."""
        self._held += data
        while b"\n" in self._held:
            line, _, self._held = self._held.partition(b"\n")
            if line.startswith(b"ERR "):
                raise Refused(line.split(b" ")[1].decode())
            if not self._theirs:
                self._theirs = line
                self.to_send += self._proof(b"client") + b"\n"
                continue
            ok, proof, *fields = line.split(b" ")
            if ok != b"OK" or not hmac.compare_digest(proof, self._proof(b"server")):
                raise Refused("no-proof")
            fields = dict(field.split(b"=") for field in fields)
            self.head, self.log = int(fields[b"head"]), fields[b"log"].decode()
            return self._held
        return None

    def _proof(self, who):
        text = b"papaya/2 %b\n%b\n%b\n" % (who, self._hello, self._theirs)
        return hmac.new(self._secret, text, "sha256").hexdigest().encode()


class ClassicLogin:
    """The key itself.  The first message of the history says that one is in."""

    def __init__(self, key):
        self.to_send = key

    def feed(self, data):
        if data.startswith(b"ERR "):
            raise Refused(data.split(b" ")[1].decode())
        return data or None
