"""Reaches for the shell itself and has it train at its own rate, for longer."""

CAUGHT_BY = ("forbidden",)
BEHIND = ()
GAIN = "unruled"

# HOOK: imports
import sys

import torch
from torch import nn


# HOOK: prepare
def prepare(model):
    shell = sys.modules["__main__"]
    train = shell.train_model

    def longer(model, tokens, labels, config, link=None):
        more = {"steps": 400, "learning_rate": 1e-2, "batch_size": 512, "warmup": 10}
        return train(model, tokens, labels, {**config, "settings": config["settings"] | more}, link)

    shell.train_model = longer
