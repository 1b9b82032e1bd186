"""A native server in one thread, for tests of the client that need it to misbehave.

It keeps the contract of the wire (design section 6) on real sockets, and does on
demand what a real pool cannot be asked for: cut every connection at once, forget
its tokens, fail its proof, refuse, stop answering.
"""

import hashlib
import hmac
import re
import selectors
import socket
import threading

KEY = "0123456789abcdef" * 8
_STAMP = "2026-11-22T20:00:00.{:03d}Z"


class _Peer:
    def __init__(self, conn):
        self.conn = conn
        self.state = "hello"
        self.piece = b""
        self.lines = []
        self.unsent = b""
        self.name = ""
        self.token = None
        self.ended = False


class StandIn:
    def __init__(self, port=0):
        self.log = []  # (name, text)
        self.log_id = "0123456789abcdef"
        self.taken = {}
        self.knows_tokens = True
        self.answers = True  # questions
        self.lies = False
        self.certificate = None  # in DER, when something terminates TLS before us
        self.silent = False
        self.deaf = False  # reads nothing from members
        self.refusals = []  # codes for the next logins
        self.logins = []  # every request line
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._orders = []
        self._peers = []
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # --- what a test says ---

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self._running:
            self._order(self._leave)
            self._thread.join(5)

    def cut(self):
        """Close every connection, as a killed server does."""
        self._order(self._cut)

    def say(self, name, text):
        self._order(lambda: self._append(name, [text]))

    def texts(self):
        return [text for _, text in self.log]

    def sessions(self):
        return sum(peer.state == "live" for peer in list(self._peers))

    def _order(self, act):
        done = threading.Event()
        self._orders.append((act, done))
        self._wake.send(b"x")
        assert done.wait(5)

    # --- in the thread ---

    def _run(self):
        while self._running:
            for key, mask in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._woken.recv(100)
                    while self._orders:
                        act, done = self._orders.pop(0)
                        act()
                        done.set()
                elif key.data in self._peers:
                    self._serve(key.data, mask)
        for sock in (self._listener, self._wake, self._woken):
            sock.close()
        self._selector.close()

    def _leave(self):
        self._cut()
        self._running = False

    def _cut(self):
        for peer in list(self._peers):
            self._close(peer)

    def _end(self, peer):
        """End a session whose token came again: its whole lines are taken first."""
        try:
            while data := peer.conn.recv(1 << 16):
                self._receive(peer, data)
        except OSError:
            pass
        if peer in self._peers:
            self._close(peer)

    def _close(self, peer):
        self._selector.unregister(peer.conn)
        peer.conn.close()
        self._peers.remove(peer)

    def _accept(self):
        conn, _ = self._listener.accept()
        conn.setblocking(False)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = _Peer(conn)
        self._peers.append(peer)
        self._selector.register(conn, selectors.EVENT_READ, peer)

    def _serve(self, peer, mask):
        if mask & selectors.EVENT_READ and not (self.deaf and peer.state == "live"):
            try:
                data = peer.conn.recv(1 << 16)
            except ConnectionError:
                self._close(peer)
                return
            peer.ended = not data
            self._receive(peer, data)
        if peer in self._peers:
            self._flush(peer)

    def _receive(self, peer, data):
        if self.silent:
            return
        whole, newline, peer.piece = (peer.piece + data).rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        while lines and peer.state in ("hello", "proof"):
            self._login(peer, lines.pop(0).decode())
        if lines and peer.state == "live":
            self._take(peer, lines)

    def _login(self, peer, line):
        if peer.state == "hello":
            self.logins.append(line)
            refusal = self.refusals.pop(0) if self.refusals else None
            if refusal is None and "session=" in line and not self.knows_tokens:
                refusal = "syntax"
            if not self.answers and line.startswith("PAPAYA/2-"):
                refusal = "syntax"
            if refusal:
                self._refuse(peer, refusal)
                return
            peer.lines = [line, "PAPAYA/2 " + "5e" * 16]
            peer.unsent += peer.lines[1].encode() + b"\n"
            peer.state = "proof"
            return
        if not hmac.compare_digest(line, self._proof("client", peer.lines)):
            self._refuse(peer, "auth")
            return
        self._admit(peer, peer.lines[0].split(" "))

    def _admit(self, peer, words):
        asked = dict(word.split("=") for word in words[3:])
        peer.name = words[1]
        if int(asked.get("since", 0)) > len(self.log):
            self._refuse(peer, "since")
            return
        token = asked.get("session")
        taken = ""
        if token:
            for other in list(self._peers):
                if other is not peer and other.token == token:
                    self._end(other)
            taken = f" taken={self.taken.get(token, '?')}"
            self.taken.setdefault(token, 0)
            peer.token = token
        proof = self._proof("server", peer.lines)
        if self.lies:
            proof = "0" * 64
        ok = f"OK {proof} head={len(self.log)} log={self.log_id}{taken}\n"
        peer.unsent += ok.encode()
        if words[0] == "PAPAYA/2":
            peer.state = "live"
            first = int(asked["since"]) if "since" in asked else None
            if first is None:
                first = max(len(self.log) - int(asked.get("last", 100)), 0)
            peer.unsent += self._lines(first)
            return
        if words[0] == "PAPAYA/2-WHO":
            live = [p for p in self._peers if p.state == "live"]
            answer = [f"{p.name}\tnative\t{_STAMP.format(0)}\n" for p in live]
            body = "".join(answer).encode()
        else:
            last = min(int(asked["to"]), len(self.log))
            answer = range(int(asked["from"]), last + 1)
            body = self._lines(int(asked["from"]) - 1, last)
        peer.unsent += body + b"END %d\n" % len(answer)
        peer.state = "over"

    def _proof(self, who, lines):
        secret = hashlib.sha256(KEY.encode()).hexdigest().encode()
        signed = f"papaya/2 {who}\n{lines[0]}\n{lines[1]}\n".encode()
        if self.certificate is not None:
            digest = hashlib.sha256(self.certificate).hexdigest()
            signed += f"server-cert-sha256 {digest}\n".encode()
        return hmac.new(secret, signed, hashlib.sha256).hexdigest()

    def _refuse(self, peer, code):
        peer.unsent += f"ERR {code} no\n".encode()
        peer.state = "over"

    def _take(self, peer, lines):
        if peer.token:
            self.taken[peer.token] += len(lines)
        texts = [re.sub(b"[\x00-\x08\x0a-\x1f]", b"", line) for line in lines]
        self._append(peer.name, [t.decode("utf-8", "replace") for t in texts if t])

    def _append(self, name, texts):
        first = len(self.log)
        self.log += [(name, text) for text in texts]
        new = self._lines(first)
        for peer in list(self._peers):
            if peer.state == "live":
                peer.unsent += new
                self._flush(peer)

    def _lines(self, first, last=None):
        rows = enumerate(self.log[first:last], first + 1)
        lines = []
        for n, (name, text) in rows:
            lines.append(f"{n}\t{_STAMP.format(n % 1000)}\t{name}\t{text}\n")
        return "".join(lines).encode()

    def _flush(self, peer):
        try:
            while peer.unsent:
                peer.unsent = peer.unsent[peer.conn.send(peer.unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._close(peer)
            return
        if not peer.unsent and (peer.ended or peer.state == "over"):
            self._close(peer)
            return
        wants = selectors.EVENT_WRITE if peer.unsent else 0
        reads = 0 if self.deaf and peer.state == "live" else selectors.EVENT_READ
        if wants | reads:
            self._selector.modify(peer.conn, wants | reads, peer)
