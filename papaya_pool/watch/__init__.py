"""The rooms of papaya-top, from two looks at a pool up to the screen.

figures   two looks make a rate; rows for both tables; pure
columns   the two tables as data: what each column shows and sorts by; pure
view      what the person chose, and what a key does to it; pure
paint     figures and view as lines of text with styles; pure
report    the same figures for scripts: table, JSON, Prometheus; pure
screen    curses, and the one loop that draws

Not here: psutil (sampler.py), and anything that could disturb a pool.  What d and k
do, they ask of the supervisor, as papaya-ctl does.
"""
