"""The whole pool killed and restarted ten times while two programs talk without pause."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from harness import until

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.soak


class Talker:
    """papaya-chat with somebody who types numbers as fast as a room can bear."""

    def __init__(self, name, state_dir, out, seed):
        self.name, self.said = name, 0
        self.out = out
        self._dice, self._done = random.Random(seed), threading.Event()
        with open(out, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "papaya_pool.chat", "--name", name]
                + ["--state-dir", str(state_dir), "--json"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self._thread = threading.Thread(target=self._type)

    def start(self):
        self._thread.start()

    def _type(self):
        while not self._done.wait(self._dice.random() * 0.02):
            for _ in range(self._dice.randrange(1, 5)):
                self.process.stdin.write(b"%d\n" % self.said)
                self.said += 1
            self.process.stdin.flush()

    def stop(self):
        """No more is typed; its exit code."""
        if self._thread.is_alive():
            self._done.set()
            self._thread.join()
        self.process.stdin.close()
        return self.process.wait(30)

    def seqs(self):
        with open(self.out, "rb") as file:
            return [json.loads(line)["seq"] for line in file]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_has_every_message_once_and_in_order(start_pool, tmp_path, seed):
    dice = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as picked:
        port = picked.getsockname()[1]
    pool = start_pool("--port", str(port))
    talkers = [
        Talker(name, pool.state_dir, tmp_path / name, f"{seed}{name}")
        for name in ("ann", "bob")
    ]
    try:
        until(lambda: pool.sessions() == 2)
        for talker in talkers:
            talker.start()
        for _ in range(10):
            threading.Event().wait(dice.random() * 0.7)
            pool.end()
            threading.Event().wait(dice.random() * 0.3)
            pool.start()
            threading.Event().wait(dice.random() * 0.8)
    finally:
        codes = [talker.stop() for talker in talkers]
    assert codes == [0, 0]
    names = [line.split(b"\t")[2].decode() for line in pool.log.splitlines()]
    texts = pool.texts()
    for talker in talkers:
        mine = [t for n, t in zip(names, texts, strict=True) if n == talker.name]
        assert mine == [str(n) for n in range(talker.said)]
        seqs = talker.seqs()
        assert seqs == list(range(1, len(seqs) + 1))
    assert max(len(talker.seqs()) for talker in talkers) == len(texts)
