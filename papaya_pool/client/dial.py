"""Sockets: the only room that opens a connection.

A Wire never blocks.  It goes through the addresses of a host one after the
other, then through TLS if asked, and is `ready` when the first byte of a
dialect may be sent.  Only looking a host's name up can block (getaddrinfo has
no other way without a thread); an address given in digits never does.

Owner:   whoever made the Wire registers `sock` with its selector, asks
         `interest()` after every call, and closes it; `sock` changes while the
         addresses are gone through, so compare it after every call.
Failure: OSError from any call, its text fit for a person.  The Wire is then
         only good for close().
"""

import errno
import os
import selectors
import socket
import ssl

READ_SIZE = 1 << 16
CONNECTING, SHAKING, READY = "connecting", "shaking", "ready"

_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK}
_GONE_QUIET = (  # a peer that vanished without a word is noticed by the kernel
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 60_000),
)


class Wire:
    def __init__(self, host: str, port: int, *, tls: bool = False) -> None:
        """Begin to connect.  Raises OSError if no address can even be tried."""
        self._tls = _Tls() if tls else None
        self._unsent = bytearray()
        self._want_shut = self._shut = False
        self._addresses = _look_up(host, port)
        self._last_error: OSError | None = None
        self.state = CONNECTING
        self.sock = self._next_address()

    @property
    def certificate(self) -> bytes | None:
        return self._tls.certificate if self._tls else None

    def interest(self) -> int:
        if self.state == CONNECTING:
            return selectors.EVENT_WRITE
        wants = selectors.EVENT_WRITE if self._unsent else 0
        return selectors.EVENT_READ | wants

    def handle(self, mask: int) -> bytes | None:
        """Do what can be done now.  What was read; b"" at the end of the stream."""
        if self.state == CONNECTING:
            self._connected_or_not()
            return None
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if not mask & selectors.EVENT_READ:
            return None
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return None
        if not self._tls:
            return data
        return self._decrypt(data)

    def send(self, data: bytes) -> None:
        try:
            self._unsent += self._tls.encrypt(data) if self._tls else data
        except ssl.SSLError:
            return  # broken already: the reads will say how
        self._flush()

    def backlog(self) -> int:
        """Bytes that the kernel did not take yet."""
        return len(self._unsent)

    def shut_write(self) -> None:
        """Half-close once everything is sent."""
        if self._want_shut:
            return
        if self._tls:
            self._unsent += self._tls.farewell()
        self._want_shut = True
        self._flush()

    @property
    def is_shut(self) -> bool:
        return self._shut

    def close(self) -> None:
        self.sock.close()

    def _next_address(self) -> socket.socket:
        while self._addresses:
            family, kind, protocol, _, address = self._addresses.pop(0)
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code == 0 or code in _IN_PROGRESS:
                return sock
            sock.close()
            self._last_error = OSError(code, os.strerror(code))
        raise self._last_error or OSError("no address to connect to")

    def _connected_or_not(self) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._last_error = OSError(code, os.strerror(code))
            self.sock.close()
            self.sock = self._next_address()
            return
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _GONE_QUIET:
            if hasattr(socket, name):
                option = getattr(socket, name)
                self.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self.state = READY
        if self._tls:
            self.state = SHAKING
            self._unsent += self._tls.shake()
            self._flush()

    def _decrypt(self, data: bytes) -> bytes | None:
        assert self._tls
        try:
            plain, answer = self._tls.decrypt(data)
        except ssl.SSLError as err:
            why = f"TLS failed: {err.reason or err}"
            raise OSError(f"{why}; for a server without TLS add --plain") from err
        if self.state == SHAKING and self._tls.certificate is not None:
            self.state = READY
        self._unsent += answer
        self._flush()
        if not data:
            return b""
        return plain

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self.sock.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except ConnectionError:
            # The other end is gone; what it sent before that is still to be read
            # and says more ("ERR ...", the last messages).  The reads will end.
            self._unsent.clear()
            return
        if self._want_shut and not self._shut:
            self._shut = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError as err:
                if err.errno != errno.ENOTCONN:
                    raise


_Address = tuple[int, int, int, str, tuple[object, ...]]


def _look_up(host: str, port: int) -> list[_Address]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (socket.gaierror, UnicodeError) as err:
        why = getattr(err, "strerror", None) or "bad name"
        raise OSError(f"{host}: {why}") from err


class _Tls:
    """TLS 1.3 as bytes in, bytes out.

    The certificate is not checked here: both proofs of the login cover it, so
    only the server that knows the key can have shown it (design section 6).
    """

    def __init__(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving)
        self.certificate: bytes | None = None

    def shake(self) -> bytes:
        try:
            self._tls.do_handshake()
            self.certificate = self._tls.getpeercert(binary_form=True)
        except ssl.SSLWantReadError:
            pass
        return self._leaving.read()

    def encrypt(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._leaving.read()

    def decrypt(self, data: bytes) -> tuple[bytes | None, bytes]:
        """(plain text; None: none yet; b"": the end) and what must be answered."""
        self._arrived.write(data)
        answer = b""
        if self.certificate is None:
            answer = self.shake()
            if self.certificate is None:
                return None, answer
        pieces = []
        try:
            while piece := self._tls.read(READ_SIZE):
                pieces.append(piece)
            ended = True
        except ssl.SSLWantReadError:
            ended = False
        except ssl.SSLZeroReturnError:
            ended = True
        plain = b"".join(pieces)
        if not plain and not ended:
            return None, answer + self._leaving.read()
        return plain, answer + self._leaving.read()

    def farewell(self) -> bytes:
        """Say that nothing more will be written; what comes is still read."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass
        return self._leaving.read()
