"""Input that kills its worker: tried once more alone, then that session ends (law 13)."""

import pytest
from harness import PORTABLE, check_streams, read_all, until

pytestmark = pytest.mark.skipif(
    PORTABLE, reason="this path cannot resume a dead worker's connections"
)
NOISE = ["^Fatal Python error", "^Current thread ", "^  File ", "^$", "^Extension modules"]


@pytest.fixture
def crowd(start_pool):
    pool = start_pool(seam="poison:")
    pool.expected = NOISE
    members = [pool.join(f"m{n}", last=0) for n in range(6)]
    members += [pool.join_classic(name=f"c{n}") for n in range(6)]
    yield pool, members
    for member in members:
        member.close()


def test_it_ends_alone_after_two_deaths_while_the_others_chat_on(crowd):
    pool, members = crowd
    pool.arm(input="deadly")
    said = 0
    with pool.join("mallory", last=0) as mallory:
        mallory.say("before", "this is deadly", "after")
        for _ in range(5):
            for member in members:
                member.say(f"message {said}")
                said += 1
        mallory.read_to_end()
        for member in members:
            member.say(f"message {said}")
            said += 1
    until(lambda: sum(text.startswith("message") for text in pool.texts()) == said)
    until(lambda: pool.sessions() == len(members))
    read_all(members, lambda member: member.count() == len(pool.texts()))
    assert [words["name"] for words in pool.events("quarantined")] == ["mallory"]
    deaths = [words for words in pool.events("reaped") if words.get("signal") == "SIGABRT"]
    assert len(deaths) == 2
    texts = [text for text in pool.texts() if text.startswith("message")]
    assert sorted(texts) == sorted(f"message {n}" for n in range(said))
    assert "this is deadly" not in pool.texts()
    pool.disarm()
    check_streams(pool.log, members)


def test_who_was_only_near_is_not_blamed(crowd):
    """A session that survives its second try is a member like others again."""
    pool, members = crowd
    pool.arm(input="deadly", once=True)
    mallory = pool.join("mallory", last=0)
    with mallory:
        mallory.say("deadly once")
        until(lambda: pool.events("reaped"))
        members[0].say("hello")
        read_all([*members, mallory], lambda member: "hello" in member.stream.decode())
        assert not pool.events("quarantined")


def test_many_poisoned_one_after_another_take_nobody_with_them(crowd):
    pool, members = crowd
    pool.arm(input="deadly")
    for n in range(4):
        with pool.join(f"mallory{n}", last=0) as mallory:
            mallory.say(f"deadly {n}")
            mallory.read_to_end()
    for n, member in enumerate(members):
        member.say(f"message {n}")
    read_all(members, lambda member: member.count() == len(members))
    assert len(pool.events("quarantined")) == 4
    check_streams(pool.log, members)
