"""Counted n-grams, copies from the row, and a small Transformer that corrects what these two say.

Where time is short and text is not, counting learns more than gradients do. All runs of up to six
tokens of the training text are counted (interpolated, with the discounts of Kneser, Ney 1995 and
Chen, Goodman 1998); a match model, known from data compression, predicts what followed the latest
tokens earlier in the row; and a Transformer, trained with Muon on the sum, adds a correction to the
log probabilities of that mixture. While it trains, each training token is left out of the counts
that predict it, for the Transformer must see the mixture as good as it will be on unseen text.
With more time than data the neural half does all the work, and this is then slower than `best`.
"""

import math
import os
import time

import torch
import torch.nn.functional as F
from kernels import get_kernel
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader
from torch import Tensor, nn

attend = get_kernel("kernels-community/flash-attn3").flash_attn_interface.flash_attn_func

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
# Depth, width, heads, rows in a batch, longest counted context, tokens to count; by row length.
SIZES = {
    64: (1, 64, 2, 16, 3, 300_000),
    256: (1, 64, 2, 8, 5, 10_000_000),
    2048: (8, 512, 4, 8, 3, 100_000_000),
}
DEPTH, WIDTH, HEADS, ROWS, CONTEXT, COUNTED = SIZES[MAX_SEQ_LEN]
MATRIX_RATE, EMBED_RATE, HEAD_RATE, SCALAR_RATE = 0.04, 0.1, 0.008, 0.05
MOMENTUM, BETAS = 0.95, (0.8, 0.95)
WARM_DOWN = 0.6  # share of the time
LONGEST_MATCH = 12
UNCOUNTED = 11 if ON_GPU else 1  # steps before the clock counts: compilation

torch.manual_seed(int(os.environ.get("SEED", "42")))
torch.set_float32_matmul_precision("high")


def shifted(tokens: Tensor, by: int) -> Tensor:
    """Return (B, T) tokens as they stood ``by`` places earlier; before the row stands 0."""
    return F.pad(tokens, (by, 0))[:, : tokens.shape[1]]


def spread(values: Tensor, sizes: Tensor) -> Tensor:
    """Return each value as often as its size says."""
    return torch.repeat_interleave(values, sizes)


class Order:
    """All runs of ``context`` + 1 tokens, sorted, and what of their counts goes to shorter ones.

    runs: (n,) a number for each distinct run; seen: (n,) how often it stands in the text; count:
    (n,) the same, or, below the longest order, how many tokens stand before it (Kneser, Ney).
    """

    def __init__(self, text: Tensor, context: int, vocabulary: int, above: "Order | None") -> None:
        self.context, self.vocabulary = context, vocabulary
        key = torch.zeros(len(text) - context, dtype=torch.long, device=text.device)
        for i in range(context + 1):
            key = key * vocabulary + text[i : len(text) - context + i]
        self.runs, self.seen = key.unique(return_counts=True)
        self.count = self.seen.float()
        if above is not None:
            ends, before = (above.runs % vocabulary ** (context + 1)).unique(return_counts=True)
            self.count = torch.ones_like(self.count)  # a run at the text's start has none before
            self.count[torch.searchsorted(self.runs, ends)] = before.float()
        self.contexts, sizes = (self.runs // vocabulary).unique_consecutive(return_counts=True)
        self.first, self.sizes = sizes.cumsum(0) - sizes, sizes
        self.total = torch.zeros(len(sizes), device=text.device)
        self.total.index_add_(
            0, spread(torch.arange(len(sizes), device=text.device), sizes), self.count
        )
        n1, n2, n3, n4 = ((self.count == i).sum().item() + 1 for i in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        discounts = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        self.discounts = torch.tensor(discounts, device=text.device).clamp(min=0.1)
        self.discounts[0] = 0

    def times_seen(self, context: Tensor, target: Tensor) -> Tensor:
        """Return how often ``target`` follows ``context`` in the text, (n,)."""
        run = context * self.vocabulary + target
        at = torch.searchsorted(self.runs, run).clamp(max=len(self.runs) - 1)
        return torch.where(self.runs[at] == run, self.seen[at], 0)

    def share(
        self, context: Tensor, left_out: Tensor | None, target: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what follows ``context`` (n,): owners, tokens, their shares, and the rest (n,)."""
        at = torch.searchsorted(self.contexts, context).clamp(max=len(self.contexts) - 1)
        sizes = torch.where(self.contexts[at] == context, self.sizes[at], 0)
        owner = spread(torch.arange(len(at), device=at.device), sizes)
        entry = spread(self.first[at] - sizes.cumsum(0) + sizes, sizes)
        entry += torch.arange(len(owner), device=at.device)
        token, count, total = self.runs[entry] % self.vocabulary, self.count[entry], self.total[at]
        if left_out is not None:
            count = count - (left_out[owner] & (token == target[owner])).float()
            total = total - left_out.float()
        share = (count - self.discounts[count.long().clamp(max=3)]) / total[owner].clamp(min=1)
        rest = torch.ones(len(at), device=at.device).index_add(0, owner, -share)
        return owner, token, share, rest.clamp(min=1e-6)


class Counts:
    """The n-gram model."""

    def __init__(self, text: Tensor, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.orders: list[Order] = []
        for context in range(CONTEXT, 0, -1):
            above = self.orders[0] if self.orders else None
            self.orders.insert(0, Order(text, context, vocabulary, above))
        one = (self.orders[0].runs % vocabulary).bincount(minlength=vocabulary) + 0.5
        self.single = one / one.sum()

    @torch.no_grad()
    def __call__(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return probabilities (B * T, V); with targets, each as if it had not been counted."""
        contexts, key = [], torch.zeros_like(tokens)
        for back in range(CONTEXT):
            key = key + shifted(tokens, back) * self.vocabulary**back
            contexts.append(key.flatten())
        target = None if targets is None else targets.flatten()
        left_out = [None] * CONTEXT
        if target is not None:
            seen = [o.times_seen(c, target) for o, c in zip(self.orders, contexts, strict=True)]
            # Below the longest order a count falls only when its one longer run is gone.
            left_out = [times == 1 for times in seen[1:]] + [seen[-1] > 0]
        weight = torch.ones(tokens.numel(), device=tokens.device)
        places, shares = [], []
        for order, context, out in list(zip(self.orders, contexts, left_out, strict=True))[::-1]:
            owner, token, share, rest = order.share(context, out, target)
            places.append(owner * self.vocabulary + token)
            shares.append(share * weight[owner])
            weight = weight * rest
        chances = weight[:, None] * self.single
        chances.view(-1).index_add_(0, torch.cat(places), torch.cat(shares))
        return chances


class Copies(nn.Module):
    """A match model: what followed where the latest tokens stood before, by length of the match."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-3, 2, LONGEST_MATCH + 1))
        self.decay = nn.Parameter(torch.tensor(0.1))

    def forward(self, tokens: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
        """Return chances (B, T, V) that add up to less than 1, and what is missing (B, T, 1)."""
        length = tokens.shape[1]
        place = torch.arange(length, device=tokens.device)
        apart = place[:, None] - place[None, :]
        same = (tokens[:, :, None] == tokens[:, None, :]) & (apart > 0)  # (B, T, earlier)
        match = same.long()
        for _ in range(LONGEST_MATCH - 1):
            same = same & F.pad(same, (1, 0, 1, 0))[:, :length, :length]
            match += same
        score = self.weight[match] - self.decay * apart.clamp(min=1).log()
        score = torch.where(match > 0, score.exp(), 0)
        share = score / (1 + score.sum(-1, keepdim=True))
        following = F.one_hot(shifted(tokens.flip(1), 1).flip(1), vocabulary).to(share.dtype)
        return share @ following, 1 - share.sum(-1, keepdim=True)


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).type_as(x)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = norm(x)
        q, k, v = (f(h).unflatten(-1, (HEADS, -1)) for f in (self.q, self.k, self.v))
        q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
        x = x + self.out(attend(q, k, v, causal=True).flatten(2))
        return x + self.down(F.relu(self.up(norm(x))).square())


class Mixture(nn.Module):
    def __init__(self, counts: Counts, vocabulary: int) -> None:
        super().__init__()
        self.counts, self.copies = counts, Copies()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.expect = nn.Linear(vocabulary, WIDTH, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        size = WIDTH // HEADS
        rate = 10_000 ** (-torch.arange(0, size, 2) / size)
        angle = torch.arange(MAX_SEQ_LEN)[:, None, None] * rate
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for block in self.blocks:
            for name, weight in block.named_parameters():
                nn.init.normal_(weight, std=WIDTH**-0.5)
                if name.startswith(("out", "down")):  # a new block adds nothing
                    nn.init.zeros_(weight)
        nn.init.normal_(self.expect.weight)
        nn.init.zeros_(self.head.weight)  # at first the mixture speaks alone

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the mean loss in nats, or without targets the logits, (B, T, V)."""
        vocabulary = self.head.out_features
        counted = self.counts(tokens, targets).view(*tokens.shape, vocabulary)
        copied, missing = self.copies(tokens, vocabulary)
        mixed = copied + missing * counted
        x = norm(self.embed(tokens) + self.expect(mixed))
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = mixed.log() + self.head(norm(x)).float()
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def orthogonal(x: Tensor) -> Tensor:
    """Return about U V' of each matrix U S V' of x (N, rows, columns), by Newton-Schulz steps."""
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).to(torch.bfloat16 if ON_GPU else torch.float32)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315  # the quintic of Jordan 2024
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (Jordan 2024); for matrices of hidden layers."""

    def __init__(self, weights: list[nn.Parameter], lr: float) -> None:
        shapes = {w.shape for w in weights}  # all matrices of a shape go in one batch
        groups = [{"params": [w for w in weights if w.shape == shape]} for shape in shapes]
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights = group["params"]
            gradient = torch.stack([w.grad for w in weights])
            state = self.state[weights[0]]
            momentum = state.setdefault("momentum", torch.zeros_like(gradient))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            step = orthogonal(gradient.lerp(momentum, MOMENTUM)).float()
            rows, columns = step.shape[-2:]
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            torch._foreach_sub_(weights, list((rate * step).unbind()))


def text_to_count(tokenizer: Tokenizer) -> Tensor:
    """Return one pass of the training text in long rows, which crop fewer documents, (n,)."""
    long = 32 * MAX_SEQ_LEN
    rows, count = [], 0
    for x, _, epoch in make_dataloader(tokenizer, 1, long, "train", buffer_size=1):
        if rows and (epoch > 1 or count >= COUNTED):
            break
        rows.append(x[0].clone())
        count += long
    return torch.cat(rows)


started = time.time()
tokenizer = Tokenizer.from_directory()
vocabulary = tokenizer.get_vocab_size()
text = text_to_count(tokenizer)
model = Mixture(Counts(text, vocabulary), vocabulary).to(DEVICE)
print(f"counted {len(text):,} tokens in {time.time() - started:.1f} s", flush=True)
parameters = sum(p.numel() for p in model.parameters())
adam = torch.optim.AdamW(
    [
        {"params": model.embed.parameters(), "lr": EMBED_RATE},
        {"params": model.expect.parameters(), "lr": EMBED_RATE},
        {"params": model.head.parameters(), "lr": HEAD_RATE},
        {"params": model.copies.parameters(), "lr": SCALAR_RATE},
    ],
    betas=BETAS,
    weight_decay=0.0,
    fused=True,
)
optimizers = [adam, Muon(list(model.blocks.parameters()), MATRIX_RATE)]
groups = [group for optimizer in optimizers for group in optimizer.param_groups]
for group in groups:
    group["full_lr"] = group["lr"]
autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=ON_GPU)
batches = make_dataloader(tokenizer, ROWS, MAX_SEQ_LEN, "train")

step, counted = 0, time.time() - started  # counting is training
while counted < TIME_BUDGET:
    began = time.time()
    progress = counted / TIME_BUDGET
    for group in groups:
        group["lr"] = group["full_lr"] * min(1.0, (1 - progress) / WARM_DOWN)
    x, y, epoch = next(batches)
    with autocast:
        loss = model(x, y)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad()
    nats = loss.item()  # waits for the GPU, so that the clock is right
    if not math.isfinite(nats):
        raise SystemExit(f"FAIL: the loss is {nats} at step {step}")
    step += 1
    if step >= UNCOUNTED:
        counted += time.time() - began
    if step % 20 == 0:
        print(f"step {step} {100 * progress:.0f}% loss {nats:.4f} epoch {epoch}", flush=True)

model.eval()
with autocast:
    bits_per_byte = evaluate_bpb(model, tokenizer, ROWS)

print("---")
print(f"val_bpb:          {bits_per_byte:.6f}")
print(f"training_seconds: {counted:.1f}")
print(f"total_seconds:    {time.time() - started:.1f}")
print(f"peak_vram_mb:     {torch.cuda.max_memory_allocated() / 2**20 if ON_GPU else 0:.1f}")
print(f"total_tokens_M:   {step * ROWS * MAX_SEQ_LEN / 1e6:.1f}")
print(f"num_steps:        {step}")
print(f"num_params_M:     {parameters / 1e6:.1f}")
print(f"depth:            {DEPTH}")
