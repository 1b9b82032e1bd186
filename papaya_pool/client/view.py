"""The screen's state: keys and events in, actions out.  No curses, no sockets.

The thing to keep: the line being typed belongs to the person.  Nothing that
arrives, is resized, refused or asked about changes it; only keys do.

Order:   resize() before the first key; whoever runs the screen does every action
         that comes back, in order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from papaya_pool import records
from papaya_pool.client import cells, commands, outbox
from papaya_pool.client.editor import Editor
from papaya_pool.client.keys import Key, Paste, Text
from papaya_pool.client.timeline import Item, Timeline, message

BATCH = 300  # messages fetched at once
SEARCH_BATCH = 2000
NAMES_LIMIT = 1000  # that Tab knows
JUMP_LIMIT = 10_000  # messages that /last and /since may fetch


@dataclass(frozen=True, slots=True)
class Say:
    text: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Do:
    what: str  # quit, who, reconnect, repaint, beep, suspend


Action = Say | Fetch | Do


class View:
    def __init__(
        self,
        me: str,
        room: str,
        clock: Callable[[], datetime],
        text_limit: int = records.LINE_LIMIT,
    ) -> None:
        self.me, self.room, self.text_limit = me, room, text_limit
        self.timeline = Timeline()
        self.editor = Editor()
        self.state = "connecting"
        self.members: int | None = None
        self.pending: list[str] = []
        self.lag_s: float | None = None
        self.unread = 0
        self.question = ""
        self.hint = ""  # a note that was made out of sight, until the next key
        self.fetching = False
        self.newest = 0
        self.last_read = 0  # before this seq everything was seen in an earlier session
        self.clock = clock
        self._focused = True
        self._pasted: list[str] = []
        self._names: dict[str, None] = {}  # last speaker last
        self._here: list[str] = []
        self._completing: tuple[list[str], int] | None = None
        self._target = 0  # the seq that /last or /since go to, while it is fetched
        self._searching = ""
        self._leaving = False
        self._missed_from = 0

    # --- events ----------------------------------------------------------------------

    def resize(self, height: int, width: int) -> None:
        self.timeline.resize(height - 2 if height > 3 else height - 1, width)

    def joined(self, head: int) -> None:
        self.state = "connected"
        if self.newest and head > self.newest:
            self._missed_from = self.newest + 1

    def arrived(self, fresh: list[records.Record], head: int) -> list[Action]:
        """Messages; those up to `head` were said before we joined."""
        items = [message(record, self.me) for record in fresh]
        me = records.folded(self.me)
        bell = False
        for record, item in zip(fresh, items, strict=True):
            self._names.pop(item.name, None)
            self._names[item.name] = None
            if len(self._names) > NAMES_LIMIT:
                del self._names[next(iter(self._names))]
            own = records.folded(record.name) == me
            live = record.seq > head
            bell = bell or (live and item.style == "mention")
            if not own:
                self._note_unread(record.seq, live)
        self.newest = fresh[-1].seq
        self.timeline.add(items)
        return [Do("beep")] if bell else []

    def fetched(self, older: list[records.Record]) -> list[Action]:
        self.fetching = False
        self.timeline.prepend([message(record, self.me) for record in older])
        if not older:
            self._target, self._searching = 0, ""
            return []
        if self._searching:
            return self._search(self._searching)
        if self._target:
            return self._go_to(self._target)
        return self._fetch_if_near()

    def fetch_failed(self, reason: str) -> None:
        self.fetching = False
        self._target, self._searching = 0, ""
        self.note(f"older messages did not come: {reason}")

    def here(self, names: list[str]) -> None:
        """Who is in the room."""
        self._here = [cells.harmless(name) for name in names]
        self.members = len(names)

    def note(self, *texts: str) -> None:
        when = self.clock()
        items = [Item(0, when, "", cells.harmless(text), "note") for text in texts]
        if not self.timeline.follows:
            self.hint = items[-1].text
        self.timeline.add(items)

    def afresh(self) -> None:
        """Another log: what is shown stays readable, and belongs to nothing."""
        was = self.timeline.items
        self.timeline.items = [Item(0, i.when, i.name, i.text, i.style) for i in was]
        self.timeline.oldest = self.timeline.mark = self.newest = 0
        self.timeline.follow()

    def _note_unread(self, seq: int, live: bool) -> None:
        line = self.timeline
        away = not (self._focused and line.follows)
        if away:
            self.unread += 1
        missed = seq == self._missed_from or (not live and 0 < self.last_read < seq)
        if not line.mark and (away or missed):
            line.mark = seq

    # --- keys ------------------------------------------------------------------------

    def key(self, key: Key) -> list[Action]:
        self.hint = ""
        if self.question:
            return self._answer(key)
        if key not in ("tab", "back-tab"):
            self._completing = None
        if isinstance(key, Paste):
            return self._paste(key.text)
        if isinstance(key, Text):
            self.editor.insert(key.text)
            return []
        acts: dict[str, Callable[[], list[Action]]] = {
            "enter": self._enter,
            "tab": lambda: self._complete(1),
            "back-tab": lambda: self._complete(-1),
            "page-up": lambda: self._scroll(max(self._page(), 1)),
            "page-down": lambda: self._scroll(-max(self._page(), 1)),
            "wheel-up": lambda: self._scroll(3),
            "wheel-down": lambda: self._scroll(-3),
            "shift-up": lambda: self._scroll(1),
            "shift-down": lambda: self._scroll(-1),
            "alt->": self._to_bottom,
            "ctrl-end": self._to_bottom,
            "ctrl-l": lambda: [Do("repaint")],
            "ctrl-z": lambda: [Do("suspend")],
            "ctrl-c": self._interrupt,
            "focus-in": lambda: self._focus(True),
            "focus-out": lambda: self._focus(False),
        }
        if key == "ctrl-d" and not self.editor.text:
            return self._quit()
        if key in acts:
            return acts[key]()
        self.editor.key(key)
        return []

    def _page(self) -> int:
        return self.timeline.height - 1

    def _enter(self) -> list[Action]:
        if not self.editor.text.strip():
            return self._to_bottom()
        meant = commands.understand(self.editor.text)
        if isinstance(meant, commands.Say):
            return self._say(meant.text)
        self.editor.accept()
        if isinstance(meant, commands.Mistake):
            self.note(meant.text)
            return []
        return self._command(meant)

    def _say(self, text: str) -> list[Action]:
        said = outbox.sayable(text.encode("utf-8", "replace"))
        if len(said) > self.text_limit:
            over = len(said) - self.text_limit
            self.note(f"that line is {over} bytes too long; it is still yours to edit")
            return []
        self.editor.accept()
        if not said:
            return []
        self.timeline.mark = self.last_read = self._missed_from = 0
        self._leaving = False
        self._to_bottom()
        return [Say(said)]

    def _command(self, meant: commands.Command) -> list[Action]:
        match meant.name:
            case "help":
                self.note(*commands.help_lines())
            case "clear":
                self.timeline.clear(self.newest + 1)
            case "quit":
                return self._quit()
            case "search":
                return self._search(meant.rest or self.timeline.found)
            case "last":
                return self._go_to(max(self.newest - meant.number + 1, 1))
            case "since":
                return self._go_to(meant.number + 1)
            case name:  # who, reconnect
                return [Do(name)]
        self._to_bottom()
        return []

    def _quit(self) -> list[Action]:
        if self.pending and not self._leaving:
            self._leaving = True
            count = len(self.pending)
            was = "line has" if count == 1 else "lines have"
            self.note(f"{count} {was} not been sent yet; once more to leave anyway")
            return []
        return [Do("quit")]

    def _interrupt(self) -> list[Action]:
        if self.editor.text:
            self.editor.accept()  # kept in the history: Up brings it back
            return []
        return self._quit()

    def _focus(self, focused: bool) -> list[Action]:
        if not focused:
            self.timeline.mark = 0
        elif self.timeline.follows:
            self.unread = 0
        self._focused = focused
        return []

    # --- older messages --------------------------------------------------------------

    def _scroll(self, rows: int) -> list[Action]:
        self.timeline.scroll(rows)
        if self.timeline.follows and self._focused:
            self.unread = 0
        return self._fetch_if_near() if rows > 0 else []

    def _to_bottom(self) -> list[Action]:
        self.timeline.follow()
        self.unread = 0
        return []

    def _fetch_if_near(self) -> list[Action]:
        """Fetch what is above before it is scrolled to."""
        page = self.timeline.height
        if self.timeline.follows and len(self.timeline.items) > page:
            return []
        is_near = self.timeline.rows_above(2 * page) < 2 * page
        return self._fetch(BATCH) if is_near else []

    def _fetch(self, count: int) -> list[Action]:
        oldest = self.timeline.oldest
        if self.fetching or oldest <= 1:
            return []
        self.fetching = True
        return [Fetch(max(oldest - count, 1), oldest - 1)]

    def _go_to(self, seq: int) -> list[Action]:
        oldest = self.timeline.oldest
        if seq < oldest:
            if oldest - seq > JUMP_LIMIT:
                self.note(f"that is more than {JUMP_LIMIT} messages back")
                return []
            self._target = seq
            return self._fetch(oldest - seq)
        self._target = 0
        index = self.timeline.index_of(seq)
        if index is None:
            self.note("there is nothing after that message yet")
        else:
            self.timeline.show_top(index)
        return []

    def _search(self, text: str) -> list[Action]:
        if not text:
            self.note("/search TEXT")
            return []
        index = self.timeline.search(text)
        if index is not None:
            self._searching = ""
            self.timeline.show(index)
            return []
        self._searching = text
        if fetch := self._fetch(SEARCH_BATCH):
            return fetch
        if not self.fetching:
            self._searching = ""
            self.timeline.found_seq = 0
            self.note(f"nothing (more) was found: {text}")
        return []

    # --- completion and pastes -------------------------------------------------------

    def names(self) -> list[str]:
        """Whom Tab knows: who spoke last first."""
        spoke = list(reversed(self._names))
        names = [*spoke, *(name for name in self._here if name not in self._names)]
        me = records.folded(self.me)
        return [name for name in names if records.folded(name) != me]

    def _complete(self, step: int) -> list[Action]:
        if self._completing is None:
            found = commands.completions(self.editor.before, self.names())
            if not found:
                return []
            self._completing = (found, -1 if step > 0 else 0)
        found, at = self._completing
        at = (at + step) % len(found)
        self._completing = (found, at)
        self.editor.replace(found[at], self.editor.after)
        return []

    def _paste(self, text: str) -> list[Action]:
        pasted = text.removesuffix("\n") if text.count("\n") == 1 else text
        if "\n" not in pasted:
            self.editor.insert(pasted)
            return []
        whole = self.editor.before + pasted + self.editor.after
        self._pasted = [line for line in whole.split("\n") if line.strip()]
        self.question = f"send {len(self._pasted)} lines? y/n"
        return []

    def _answer(self, key: Key) -> list[Action]:
        answer = key.text[:1].lower() if isinstance(key, Text) else key
        if answer == "y":
            lines, self._pasted, self.question = self._pasted, [], ""
            self.editor.replace("")
            return self._say_all(lines)
        if answer in ("n", "escape", "ctrl-c"):
            lines, self._pasted, self.question = self._pasted, [], ""
            self.editor.replace(" ".join(lines))
        return []

    def _say_all(self, lines: Iterable[str]) -> list[Action]:
        """Pasted lines are text, whatever they begin with: no command is run."""
        actions: list[Action] = []
        for line in lines:
            self.editor.replace(line)
            actions += self._say(line)
        return actions
