"""Every choice of the random and TPE searches in one file; the harness rewrites the KNOBS line.

A GPT with Muon for its matrices, as in `muon`. Sizes are factors on the profile's own.
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
KNOBS = {"depth_change": 0, "width_factor": 1.0, "batch_factor": 1.0, "matrix_rate": 0.02, "embed_rate": 0.02, "head_rate": 0.004, "weight_decay": 0.1, "warm_down": 0.5, "cap": 15.0, "pairs": True, "window": "alternate", "activation": "relu_squared"}  # fmt: skip  # noqa: E501

# Depth, width, heads, rows in a batch, batches in a step, rows of the pair table; by row length.
SIZES = {
    64: (2, 64, 2, 16, 1, 1 << 12),
    256: (2, 128, 4, 8, 1, 1 << 16),
    2048: (8, 512, 4, 64, 2, 1 << 18),
}
DEPTH, WIDTH, HEADS, ROWS, ACCUMULATE, PAIRS = SIZES[MAX_SEQ_LEN]
DEPTH += KNOBS["depth_change"]
WIDTH, HEADS = (int(n * KNOBS["width_factor"]) for n in (WIDTH, HEADS))
ROWS = int(ROWS * KNOBS["batch_factor"])
SHORT = MAX_SEQ_LEN // 4 if KNOBS["window"] == "alternate" else -1
WINDOWS = ((SHORT, 0), (-1, 0))
UNCOUNTED = 11 if ON_GPU else 1  # steps before the clock counts: compilation

torch.manual_seed(int(os.environ.get("SEED", "42")))
torch.set_float32_matmul_precision("high")


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).type_as(x)


class Block(nn.Module):
    def __init__(self, window: tuple[int, int]) -> None:
        super().__init__()
        self.window = window
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv(norm(x)).unflatten(-1, (3, HEADS, -1)).unbind(2)
        q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
        x = x + self.out(attend(q, k, v, causal=True, window_size=self.window).flatten(2))
        h = self.up(norm(x))
        return x + self.down(F.gelu(h) if KNOBS["activation"] == "gelu" else F.relu(h).square())


class GPT(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.pairs = nn.Embedding(PAIRS, WIDTH)
        windows = [WINDOWS[i % 2] for i in range(1, DEPTH)] + [WINDOWS[1]]
        self.blocks = nn.ModuleList(Block(window) for window in windows)
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        size = WIDTH // HEADS
        rate = 10_000 ** (-torch.arange(0, size, 2) / size)
        angle = torch.arange(MAX_SEQ_LEN)[:, None, None] * rate
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, weight in self.named_parameters():
            nn.init.normal_(weight, std=WIDTH**-0.5)
            if name.endswith(("out.weight", "down.weight", "head.weight", "pairs.weight")):
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the mean loss in nats, or without targets the logits, (B, T, V)."""
        x = self.embed(tokens)
        if KNOBS["pairs"]:
            before = F.pad(tokens[:, :-1], (1, 0))
            x = x + self.pairs((before * 1_000_003 + tokens * 7_919) % PAIRS)
        x = norm(x)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(norm(x)).float()
        if cap := KNOBS["cap"]:
            logits = cap * torch.tanh(logits / cap)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps; matrices of one shape at a time."""

    def __init__(self, matrices: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        shapes = {p.shape: [q for q in matrices if q.shape == p.shape] for p in matrices}
        groups = [{"params": same} for same in shapes.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            same = group["params"]
            gradient = torch.stack([p.grad for p in same])
            state = self.state[same[0]]
            held = state.setdefault("momentum", torch.zeros_like(gradient))
            held.lerp_(gradient, 1 - group["momentum"])
            update = orthogonal(gradient.lerp(held, group["momentum"]))
            scale = max(1.0, same[0].shape[0] / same[0].shape[1]) ** 0.5
            for weight, change in zip(same, update, strict=True):
                weight.mul_(1 - group["lr"] * KNOBS["weight_decay"])
                weight.add_(change.type_as(weight), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return about U V^T of each matrix of a stack (n, rows, columns)."""
    x = matrices.bfloat16() if ON_GPU else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


started = time.time()
tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size()).to(DEVICE)
parameters = sum(p.numel() for p in model.parameters())
muon = Muon(list(model.blocks.parameters()), KNOBS["matrix_rate"])
tables = [model.embed.weight, *([model.pairs.weight] if KNOBS["pairs"] else [])]
adam = torch.optim.AdamW(
    [
        {"params": tables, "lr": KNOBS["embed_rate"]},
        {"params": [model.head.weight], "lr": KNOBS["head_rate"]},
    ],
    betas=(0.8, 0.95),
    weight_decay=0.0,
    fused=True,
)
optimizers = (muon, adam)
for optimizer in optimizers:
    for group in optimizer.param_groups:
        group["full"] = group["lr"]
compiled = torch.compile(model, dynamic=False) if ON_GPU else model
autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=ON_GPU)
batches = make_dataloader(tokenizer, ROWS, MAX_SEQ_LEN, "train")
x, y, epoch = next(batches)

step, counted = 0, 0.0
while counted < TIME_BUDGET:
    began = time.time()
    progress = counted / TIME_BUDGET
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full"] * min(1.0, (1 - progress) / KNOBS["warm_down"])
    for _ in range(ACCUMULATE):
        with autocast:
            loss = compiled(x, y)
        (loss / ACCUMULATE).backward()
        x, y, epoch = next(batches)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
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
    bits_per_byte = evaluate_bpb(compiled, tokenizer, ROWS)

print("---")
print(f"val_bpb:          {bits_per_byte:.6f}")
print(f"training_seconds: {counted:.1f}")
print(f"total_seconds:    {time.time() - started:.1f}")
print(f"peak_vram_mb:     {torch.cuda.max_memory_allocated() / 2**20 if ON_GPU else 0:.1f}")
print(f"total_tokens_M:   {step * ACCUMULATE * ROWS * MAX_SEQ_LEN / 1e6:.1f}")
print(f"num_steps:        {step}")
print(f"num_params_M:     {parameters / 1e6:.1f}")
print(f"depth:            {DEPTH}")
