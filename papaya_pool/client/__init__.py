"""The rooms of papaya-chat, from the wire up to the screen.

Floors, each importing only from those above it in this list
(tests/unit/test_client_floors.py):

link outbox cells keys config     one idea each; pure, but for config's files
classic editor commands setup     on one of those
member timeline dial              one person over many connections; rows; sockets
driver view                       what a mode turns by hand; the screen's state
ask paint                         a question of its own; the state as cells
line terminal                     pipes; curses
screen                            the full screen's loop

Pure: everything but config, setup, dial, driver, ask, line, terminal and screen.
Not here: anything of the server.  From papaya_pool these rooms know errors,
records and settings only.
"""
