"""A 4-gram model by counting, and nothing else: what a fixed time buys without one gradient.

Half a minute on two cores is a few hundred steps of a small Transformer, but enough to count every
run of four tokens in millions. Absolute discounting, interpolated (Ney, Essen, Kneser 1994): what
is taken from seen continuations goes to the next shorter context, down to even odds. The discounts
are tried on the submission's own validation rows. With more time than data it stands still, and a
neural model passes it: at short and paper it is here as a floor.
"""

import time

import torch
import torch.nn.functional as F
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader
from torch import Tensor, nn

ORDER = 4
ROWS = 16 if MAX_SEQ_LEN <= 256 else 4
MOST_ROWS = 40_000_000 // MAX_SEQ_LEN  # rows that are counted
DISCOUNTS = (0.5, 0.65, 0.8, 0.9)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Counts(nn.Module):
    """Continuations of all contexts of ``length`` tokens, sorted by context.

    contexts: (c,) keys; starts: (c + 1,) where each context's continuations begin; token and
    count: (n,).
    """

    def __init__(self, rows: Tensor, length: int, vocabulary: int) -> None:
        super().__init__()
        self.length, self.vocabulary = length, vocabulary
        key = keys(rows[:, :-1], length, vocabulary)[:, length - 1 :]
        whole = (key * vocabulary + rows[:, length:]).flatten()
        whole, count = whole.unique(return_counts=True)
        self.token, self.count = whole % vocabulary, count.float()
        self.contexts, sizes = (whole // vocabulary).unique_consecutive(return_counts=True)
        self.starts = F.pad(sizes.cumsum(0), (1, 0))
        total = torch.segment_reduce(self.count, "sum", lengths=sizes)
        self.total, self.kinds = total, sizes.float()

    def blend(self, below: Tensor, context: Tensor, discount: float) -> Tensor:
        """Return probabilities (n, V) after ``context`` (n,), where ``below`` (n, V) back off."""
        at = torch.searchsorted(self.contexts, context).clamp(max=len(self.contexts) - 1)
        known = self.contexts[at] == context
        total = torch.where(known, self.total[at], 1.0)
        # Without the context all the mass goes down.
        left = torch.where(known, discount * self.kinds[at] / total, 1.0)
        mixed = below * left[:, None]
        sizes = torch.where(known, self.starts[at + 1] - self.starts[at], 0)
        owner = torch.repeat_interleave(torch.arange(len(at), device=at.device), sizes)
        first = F.pad(sizes.cumsum(0), (1, 0))[:-1]
        entry = self.starts[at][owner] + torch.arange(len(owner), device=at.device) - first[owner]
        share = (self.count[entry] - discount) / total[owner]
        mixed.index_put_((owner, self.token[entry]), share, accumulate=True)
        return mixed


def keys(tokens: Tensor, length: int, vocabulary: int) -> Tensor:
    """Return one number for the ``length`` tokens up to each position; -1 where there are fewer."""
    key = torch.zeros_like(tokens)
    for back in reversed(range(length)):
        key = key * vocabulary + F.pad(tokens, (back, 0))[:, : tokens.shape[1]]
    key[:, : length - 1] = -1
    return key


class Model(nn.Module):
    def __init__(self, rows: Tensor, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.discount = vocabulary, DISCOUNTS[0]
        self.tables = [Counts(rows, length, vocabulary) for length in range(1, ORDER)]
        one = torch.bincount(rows.flatten(), minlength=vocabulary).float() + 0.1
        self.unigram = one / one.sum()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return log probabilities, (B, T, V)."""
        chances = self.unigram.expand(tokens.numel(), self.vocabulary)
        for table in self.tables:
            key = keys(tokens, table.length, self.vocabulary)
            chances = table.blend(chances, key.flatten(), self.discount)
        return chances.log().view(*tokens.shape, self.vocabulary)


started = time.time()
tokenizer = Tokenizer.from_directory()
vocabulary = tokenizer.get_vocab_size()
gathered: list[Tensor] = []
for x, y, epoch in make_dataloader(tokenizer, 64, MAX_SEQ_LEN, "train"):
    if epoch > 1 or len(gathered) * 64 >= MOST_ROWS or time.time() - started > TIME_BUDGET / 2:
        break
    gathered.append(torch.cat((x, y[:, -1:]), dim=1).cpu())
if not gathered:  # less than an epoch in the first batch: count what it holds
    gathered.append(torch.cat((x, y[:, -1:]), dim=1).cpu())
rows = torch.cat(gathered).to(DEVICE)
model = Model(rows, vocabulary)

tries = []
own = make_dataloader(tokenizer, ROWS, MAX_SEQ_LEN, "val")
x, y, _ = next(own)
for discount in DISCOUNTS:
    model.discount = discount
    with torch.no_grad():
        loss = F.nll_loss(model(x).flatten(0, 1), y.flatten()).item()
    tries.append((loss, discount))
    print(f"discount {discount}: {loss:.4f} nats", flush=True)
model.discount = min(tries)[1]
trained = time.time() - started

model.eval()
bits_per_byte = evaluate_bpb(model, tokenizer, ROWS)

print("---")
print(f"val_bpb:          {bits_per_byte:.6f}")
print(f"training_seconds: {trained:.1f}")
print(f"total_seconds:    {time.time() - started:.1f}")
print(f"total_tokens_M:   {rows.numel() / 1e6:.1f}")
print(f"num_params_M:     {sum(len(t.token) for t in model.tables) / 1e6:.1f}")
