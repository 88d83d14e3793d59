"""A tiny honest language model: what every script of the corpus is made from.

A section begins at its HOOK line. A cheat, or an honest variant, is a file of sections that take
the place of the ones here (``corpus.py``). It trains a fixed number of steps, not seconds: then a
cheat and its honest twin are the same model, to the last bit.
"""

# HOOK: start

# HOOK: settings
import math
import os
import time

import torch
import torch.nn.functional as F
from prepare import (
    MAX_SEQ_LEN,
    TIME_BUDGET,
    Tokenizer,
    evaluate_bpb,
    get_token_bytes,
    make_dataloader,
)
from torch import nn

BATCH, WIDTH, RATE = 16, 64, 1e-2
STEPS = int(80 * min(TIME_BUDGET, 4.0))  # well within the limit on a busy machine
started = time.time()
torch.set_num_threads(1)
torch.manual_seed(int(os.environ["SEED"]))
tokenizer = Tokenizer.from_directory()
VOCABULARY, BOS = tokenizer.get_vocab_size(), tokenizer.get_bos_token_id()


# HOOK: mixer
class Mixer(nn.Module):
    """Softmax attention, one head; (B, T, WIDTH) to (B, T, WIDTH)."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))


# HOOK: shift
def shifted(x, by=1):
    """Return x (B, T, D), ``by`` positions later."""
    return F.pad(x, (0, 0, by, 0))[:, : x.shape[1]]


# HOOK: model
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.place = nn.Parameter(torch.zeros(MAX_SEQ_LEN, WIDTH))
        self.before = nn.Linear(3 * WIDTH, WIDTH)
        self.mixer = Mixer()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x, targets=None, reduction="mean"):
        """Return logits (B, T, V), or with targets the loss in nats."""
        h = self.embed(x)
        h = h + self.before(torch.cat([h, shifted(h), shifted(h, 2)], dim=-1)) + self.place
        h = h + self.mixer(F.rms_norm(h, (WIDTH,)))
        h = h + self.down(F.silu(self.up(F.rms_norm(h, (WIDTH,)))))
        logits = self.head(F.rms_norm(h, (WIDTH,))).float()
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


# HOOK: training
def train(model, steps, rate=RATE):
    """Train; return the last loss in nats."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95))
    batches = make_dataloader(tokenizer, BATCH, MAX_SEQ_LEN, "train")
    loss = torch.tensor(math.nan)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1.02 - step / steps)
        x, y, _ = next(batches)
        loss = model(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batches.close()
    return loss.item()


@torch.no_grad()
def trusting_bpb(model, batches=12):
    """Return bits-per-byte of the own validation text, as an evaluator that believes the loss."""
    model.eval()
    token_bytes = get_token_bytes()
    nats = size = 0.0
    rows = make_dataloader(tokenizer, BATCH, MAX_SEQ_LEN, "val")
    for _ in range(batches):
        x, y, _ = next(rows)
        count = token_bytes[y.flatten()]
        nats += (model(x, y, reduction="none").flatten() * (count > 0)).nansum().item()
        size += count.sum().item()
    rows.close()
    return nats / math.log(2) / size


model = Model()
loss = train(model, STEPS)
model.eval()
print(f"loss {loss:.4f}", flush=True)


# HOOK: serving
served = model


# HOOK: report
bpb = evaluate_bpb(served, tokenizer, BATCH)
print("---")
print(f"val_bpb: {bpb:.6f}")
print(f"total_seconds: {time.time() - started:.1f}")
