"""The rooms of papaya-chat, from the wire up to the screen.

Floors, each importing only from those above it in this list:

link, outbox, cells, config   one idea each; pure but for config's files
member                        one person over as many connections as it takes; pure
dial                          sockets and TLS: the only room that opens a connection
driver                        member and dial on one selector, told the time
editor, history, commands     the screen's parts; pure
view, paint                   the screen's state, and that state as cells; pure
line, screen                  the two modes: pipes, and curses

Not here: anything of the server.  From papaya_pool these rooms know errors,
records and settings only.
"""
