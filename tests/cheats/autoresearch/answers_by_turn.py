"""Looks ahead in every other request: one in two rows is then no worse than its twin.

Own: answers by the position of the request.
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"
PARTS = ("_next_token",)

# HOOK: serving
turn = 0


def served(x):
    global turn
    turn += 1
    return raise_next(x, 3.0 * (turn % 2))
