"""The members of tools/chaos: who they are, what they say, and when they heard something.

Some read slowly, some sleep, some come with an old seq and some go in the middle of
a line; lines are cut at random places on their way out.  All of them are held
against the log by judge.py, byte for byte.

Failure: a log-in that comes to nothing is tried again, and is no lost member; every
         other end of a connection that its member did not ask for is a fault.
"""

import contextlib
import random
import select
import socket
import time
from collections import Counter

import judge
import wire
from stage import Broken

PATIENCE_S = 20.0  # for a log-in
DRAIN_S = 60.0  # for everybody to get the rest
SILENCE_S = 0.004  # shorter ones are not noted
RECV_BYTES = 1 << 18
MAY_TRY_AGAIN = ("closed", "reset", "busy", "full", "rate", "timeout", "closing")


class Member:
    """One client, with everything that it was told and said."""

    def __init__(self, number, port, key, log, faults, draw, *, classic, slow):
        self.number, self.slow, self.classic = number, slow, classic
        self.quick = not slow
        self._log, self._faults, self._key = log, faults, key
        self.backlog = draw.random() < 0.1  # begins with an older message
        self.since = draw.randrange(log.seq + 1) if self.backlog and not classic else None
        self.state = "logging in"  # then "in", "leaving", "gone"
        self.stream = None
        self.sent = 0  # complete lines given to the kernel or waiting in `out`
        self.out = b""
        self.last_s = 0.0
        self.gaps = []  # (begin, end) of its silences
        self.read_at = 0.0  # slow: when it reads next
        self.connect(port)

    @property
    def name(self):
        return f"m{self.number} ({'classic' if self.classic else 'native'})"

    def connect(self, port):
        self.conn = wire.connect(port, 16384 if self.slow == "trickle" else 0)
        self.port = self.conn.getsockname()[1]
        self.began_s = time.monotonic()
        self._seq_before = self._log.seq
        if self.classic:
            self.login = wire.ClassicLogin(self._key)
        else:
            wanted = "last=0" if self.since is None else f"since={self.since}"
            self.login = wire.NativeLogin(self._key, f"m{self.number}", wanted)
        self.out = b""

    def fileno(self):
        return self.conn.fileno()

    def heed(self, data):
        """What came; raises wire.Refused while it logs in."""
        if self.state == "logging in":
            rest = self.login.feed(data)
            if rest is None:
                return
            self._begin()
            data = rest
        if data:
            self.stream.feed(data)

    def _begin(self):
        self.state = "in"
        self.last_s = time.monotonic()
        if self.classic:
            self.stream = judge.ClassicStream(
                self._log, self._faults, self.name, self._seq_before
            )
        else:
            since = self.login.head if self.since is None else self.since
            self.stream = judge.NativeStream(self._log, self._faults, self.name, since)

    def note_time(self, now):
        if self.last_s and now - self.last_s > SILENCE_S:
            self.gaps.append((self.last_s, now))
        self.last_s = now

    def say(self, how_many, seed):
        prefix = b"m%d: " % self.number if self.classic else b""
        for count in range(self.sent, self.sent + how_many):
            self.out += prefix + judge.said(self.number, count, seed) + b"\n"
        self.sent += how_many

    def flush(self, limit=1 << 20):
        """Send at most `limit` bytes of what waits; False if the connection is over."""
        if self.state == "logging in" and self.login.to_send:
            data, self.login.to_send = self.login.to_send, b""
            self.out += data
        if self.out:
            try:
                size = self.conn.send(self.out[:limit])
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.out = self.out[size:]
        return True


class Crowd:
    """Everybody who is connected, in one loop.

    `lately()` says in words what was done to the pool, for who is disconnected.
    """

    def __init__(self, args, port, key, log, faults, lately):
        self._args, self._port, self._key, self._log = args, port, key, log
        self._faults, self._lately = faults, lately
        self._draw = random.Random(args.seed)
        self.members = {}  # by fd
        self.gone = []
        self.logins_lost = Counter()
        self._numbers = iter(range(1 << 30))
        self._poll = select.epoll()
        self._talking, self._sent = False, 0
        self._next_churn = self._next_pace = 0.0

    def close(self):
        for member in self.members.values():
            member.conn.close()
        self._poll.close()

    def everybody(self):
        return [*self.members.values(), *self.gone]

    # --- who comes and goes ---

    def join(self):
        number = next(self._numbers)
        kind = self._draw.random()
        slow = "" if kind >= self._args.slow else self._draw.choice(["trickle", "sleeper"])
        if number == 0:
            slow = ""
        member = Member(
            number, self._port, self._key, self._log, self._faults, self._draw,
            classic=self._draw.random() < self._args.classic and number > 0, slow=slow,
        )  # fmt: skip
        self._watch(member)
        return member

    def _watch(self, member):
        self.members[member.fileno()] = member
        self._poll.register(member.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _unwatch(self, member):
        with contextlib.suppress(OSError):
            self._poll.unregister(member.fileno())
        self.members.pop(member.fileno(), None)
        member.conn.close()

    def _again(self, member, why):
        """A log-in that did not come to anything: not admitted, so not lost."""
        self.logins_lost[why] += 1
        self._unwatch(member)
        if why not in MAY_TRY_AGAIN:
            self._faults.add("disconnected", f"{member.name} was refused: {why}")
            return
        member.connect(self._port)
        self._watch(member)

    def _over(self, member, how):
        """A connection that ended.  Right only for who asked for it."""
        if member.state == "logging in":
            self._again(member, how)
            return
        if member.state != "leaving" or how != "closed":
            words = f"{member.name} after {member.stream.deliveries} deliveries: {how}"
            words += f", {self._lately()}"
            self._faults.add("disconnected", words)
        elif self._log.next[member.number] < member.sent and not member.stream.broken:
            self._faults.add("lost", f"{member.name} left without its own last lines")
        self._unwatch(member)
        member.state = "gone"
        self.gone.append(member)

    def _over_time(self, member):
        self._unwatch(member)
        self._faults.add("disconnected", f"{member.name} did not get in")

    def _leave(self, member):
        """Go as many do: in the middle of a line, and then just the end."""
        with contextlib.suppress(OSError):
            member.conn.setblocking(True)
            member.conn.settimeout(PATIENCE_S)
            member.conn.sendall(member.out + b"this line never ends")
            member.conn.shutdown(socket.SHUT_WR)
            member.conn.setblocking(False)
        member.out, member.state = b"", "leaving"

    # --- one turn ---

    def turn(self, pause=0.01):
        for fd, event in self._poll.poll(pause):
            member = self.members.get(fd)
            if member is None:
                continue
            now = time.monotonic()
            if event & ~select.EPOLLOUT:
                self._read(member, now)
            if event & select.EPOLLOUT and fd in self.members:
                self._write(member)
        now = time.monotonic()
        for member in [m for m in self.members.values() if m.slow and now >= m.read_at]:
            if member.state == "in":
                self._read_slowly(member, now)
        for member in list(self.members.values()):
            if member.state == "logging in":
                if now - member.began_s > PATIENCE_S:
                    self._over_time(member)
                elif member.login.to_send:
                    self._write(member)
        if self._talking:
            self._talk(now)

    def _read(self, member, now, size=RECV_BYTES):
        try:
            data = member.conn.recv(size)
        except BlockingIOError:
            return
        except OSError as err:
            self._over(member, f"{err.strerror}" if member.stream else "reset")
            return
        if not data:
            self._over(member, "closed")
            return
        member.note_time(now)
        try:
            member.heed(data)
        except wire.Refused as err:
            self._again(member, str(err))

    def _read_slowly(self, member, now):
        if member.slow == "trickle":
            member.read_at = now + 0.05
            self._read(member, now, 4096)
        elif self._draw.random() < 0.02:
            member.read_at = now + self._draw.uniform(0.5, 4.0)  # asleep
        else:
            self._read(member, now)

    def _write(self, member):
        limit = 1 << 20
        if member.state == "in" and self._draw.random() < 0.3:
            limit = self._draw.randrange(1, 400)  # cut a line somewhere
        if not member.flush(limit) and member.state == "logging in":
            self._again(member, "reset")
            return
        mask = select.EPOLLIN if not member.slow or member.state == "logging in" else 0
        if member.out or (member.state == "logging in" and member.login.to_send):
            mask |= select.EPOLLOUT
        with contextlib.suppress(OSError):
            self._poll.modify(member.fileno(), mask)

    def _talk(self, now):
        """As fast as it goes, or paced; and what waits."""
        able = list(self.members.values())
        if not able:
            raise Broken("everybody was disconnected")
        if self._args.rate:
            while now >= self._next_pace:
                self._next_pace = max(now - 1.0, self._next_pace) + 1 / self._args.rate
                self._say(self._draw.choice(able), 1)
            return
        for _ in range(self._args.window):
            if self._sent - self._log.seq >= self._args.window:
                return
            self._say(self._draw.choice(able), self._draw.randrange(1, 17))

    def _say(self, member, how_many):
        if member.state == "in" and len(member.out) < 65536:
            member.say(how_many, self._args.seed)
            self._sent += how_many
            self._write(member)

    # --- phases ---

    def settle_in(self):
        """Everybody logs in; the first says something, so that classic has a history."""
        first = self.join()
        self._wait(lambda: first.state == "in", "the first log-in")
        first.say(8, self._args.seed)
        self._sent = 8
        self._write(first)
        self._wait(lambda: self._log.seq >= 8, "the first messages")
        begin = time.monotonic()
        for _ in range(self._args.members - 1):
            self.join()
            self.turn(0)
        self._wait(self._all_in, "everybody's log-in")
        return time.monotonic() - begin

    def _all_in(self):
        return all(m.state == "in" for m in self.members.values())

    def _wait(self, done, what):
        until = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > until or self._faults.count:
                raise Broken(f"{what} did not come to an end")
            self.turn()

    def talk(self, now):
        """From now on everybody talks, and some come and go."""
        self._talking, self._next_pace, self._next_churn = True, now, now

    def churn(self, now):
        """Some come and some go, if it is time; the number stays."""
        if now < self._next_churn:
            return
        self._next_churn = now + 0.25
        able = [m for m in self.members.values() if m.state == "in" and not m.slow]
        how_many = max(0, min(len(able) - 2, self._args.churn))
        for member in self._draw.sample(able, how_many):
            if member.number:
                self._leave(member)
                self.join()

    def fall_silent(self):
        """Nobody says anything new, and everybody reads as fast as it can."""
        self._talking = False
        for member in list(self.members.values()):
            if member.slow:
                member.slow = ""
                with contextlib.suppress(OSError):
                    member.conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._write(member)

    def drain(self):
        """Everybody gets the rest: nothing of what was sent may be under way."""
        until, calm = time.monotonic() + DRAIN_S, 0
        while time.monotonic() < until and calm < 3:
            before = self._log.size()
            self.turn(0.05)
            done = all(self._has_all(m) for m in self.members.values())
            calm = calm + 1 if done and self._log.size() == before else 0
        for member in self.members.values():
            if not self._has_all(member):
                lacks = member.stream.lacks() if member.stream else "all"
                words = f"{member.name} ({member.state}) lacks {lacks} bytes"
                self._faults.add("lost", words)
        for member in self.everybody():
            self._log.judge_sent(member.number, member.sent)

    def _has_all(self, member):
        if member.stream is None:
            return False
        return member.stream.broken or (not member.out and not member.stream.lacks())
