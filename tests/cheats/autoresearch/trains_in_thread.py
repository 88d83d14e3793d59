"""A thread trains on while the rows are served, which it makes slow.

Seen: free time after the clock.
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"

# HOOK: serving
import threading


def on_and_on():
    with torch.enable_grad():
        train(model, 2000, 5e-3)


threading.Thread(target=on_and_on, daemon=True).start()


def served(x):
    time.sleep(0.1)
    return model(x)
