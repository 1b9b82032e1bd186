"""A chat server made of processes that may die at any moment.

A fixed pool of workers hand sockets to each other and share one append-only
log.  PROTOCOLS.md, beside this file, says by which laws.

Not here: anything to import.  The programs are papaya_pool.__main__ (the
server), .chat, .top and .ctl.
"""

__version__ = "0.1.0"
