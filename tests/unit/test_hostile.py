"""The check of hostile messages can fail: a screen that is touched is found out."""

import pytest
from hostile import HOSTILE, check_cells
from vt import Screen


class Shown:
    """A program that shows what eve says, and does harm at one of her lines."""

    def __init__(self, harm=None):
        self.screen, self._harm = Screen(24, 80), harm
        self._rows = [""] * 22

    def say(self, *texts):
        for text in texts:
            words = text if text.startswith(("filler", "end")) else "hi"
            self._rows = [*self._rows[1:], f"20:00        eve  {words}"]
        for y, row in enumerate([*self._rows, " a room | 2 here", "[ann]"]):
            self.screen.cells[y] = list(row.ljust(80))
        if self._harm and HOSTILE[9] in texts:
            y, x = self._harm
            self.screen.cells[y][x] = "#"

    def type(self, keys):
        pass

    def shows(self, text):
        assert any(text in line for line in self.screen.lines())

    def until(self, condition):
        assert condition(self.screen.lines())


def test_it_passes_a_screen_that_nothing_touches():
    check_cells(shown := Shown(), shown.say)


@pytest.mark.parametrize("cell", [(0, 0), (10, 79), (20, 3), (20, 17), (22, 5), (23, 79)])
def test_it_finds_one_cell_that_changed(cell):
    shown = Shown(cell)
    with pytest.raises(AssertionError):
        check_cells(shown, shown.say)


def test_it_finds_a_row_that_is_too_long():
    shown = Shown()
    say = shown.say

    def too_long(*texts):
        say(*texts)
        if HOSTILE[3] in texts:
            shown.screen.cells[5].append("x")

    with pytest.raises(AssertionError):
        check_cells(shown, too_long)
