"""Trains before the shell does, with as many steps and the optimiser that it likes."""

CAUGHT_BY = ("forbidden",)
BEHIND = ()
GAIN = "unruled"

# HOOK: imports
import json
import sys

import numpy as np
import torch
from torch import nn


# HOOK: prepare
def prepare(model):
    train = json.load(open(sys.argv[1]))["paths"]["train"]
    tokens = torch.from_numpy(np.load(f"{train}/tokens.npy")).long()
    labels = torch.from_numpy(np.load(f"{train}/labels.npy")).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(400):
        logits = model.head(model.features(tokens, tokens > 0))
        loss = nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
