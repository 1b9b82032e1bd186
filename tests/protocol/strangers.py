"""A client's half of the login, from design section 6 and not from our code."""

import hashlib
import hmac

from papaya_pool import dialects

KEY = bytes(b"0123456789abcdef"[(7 * i) % 16] for i in range(128))
K = hashlib.sha256(KEY).hexdigest().encode()
SERVER_NONCE = b"5e" * 16
SERVER_LINE = b"PAPAYA/2 " + SERVER_NONCE
NONCE = b"c1" * 16
TOKEN = b"70" * 16


def new_login(classic_allowed=True):
    return dialects.Login(
        key_digits=KEY,
        proof_key=K,
        server_nonce=SERVER_NONCE,
        classic_allowed=classic_allowed,
    )


def hello(name="alice", *options):
    return b" ".join([b"PAPAYA/2", name.encode(), NONCE, *options])


def signed(who, client_line, key=K):
    text = b"papaya/2 " + who + b"\n" + client_line + b"\n" + SERVER_LINE + b"\n"
    return hmac.new(key, text, "sha256").hexdigest().encode()


def whole_login(line, ending=b"\n", key=K):
    """Both lines at once, which only somebody who knows our nonce can do."""
    return line + ending + signed(b"client", line, key) + ending


def admitted(line, **but):
    """The Admit that a right login with this first line must end in."""
    fields = {
        "dialect": "native",
        "name": "alice",
        "since": None,
        "last": 100,
        "token": b"",
        "rest": b"",
        "proof": signed(b"server", line),
        "received": len(whole_login(line)),
    }
    return dialects.Admit(**(fields | but))


def refusal(effects):
    """The code of the refusal that `effects` end in."""
    *before, last = effects
    assert isinstance(last, dialects.Refuse), effects
    assert all(isinstance(effect, dialects.Send) for effect in before)
    return last.code
