"""Honest in the first third of the requests; then it looks ahead at what it has not seen.

Own: the order of requests as a tell. Repeats of early rows get the early answers.
"""

CAUGHT_BY = ("swap", "trend")
GAIN = "measured"
PARTS = ("_next_token", "_replay")

# HOOK: serving
requests = 0


def later(x):
    global requests
    requests += 1
    return raise_next(x, 2.0 * (requests > 12))


served = Replay(later)
