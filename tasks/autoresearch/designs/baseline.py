"""A plain GPT trained with AdamW: the starting point.

Pre-norm transformer with rotary positions, RMSNorm and a squared-ReLU MLP; one batch size, one
learning rate with a short warm-up and a cosine down to a tenth. Everything can be improved.
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
# Depth, width, heads, rows in a batch, batches in a step, learning rate; by the length of a row.
SIZES = {64: (2, 64, 2, 16, 1, 3e-3), 256: (3, 128, 4, 16, 1, 3e-3), 2048: (8, 512, 4, 64, 4, 1e-3)}
DEPTH, WIDTH, HEADS, ROWS, ACCUMULATE, LEARNING_RATE = SIZES[MAX_SEQ_LEN]
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
WARM_UP, FINAL = 0.05, 0.1  # share of the time; share of the learning rate
UNCOUNTED = 11 if ON_GPU else 1  # steps before the clock counts: compilation

torch.manual_seed(int(os.environ.get("SEED", "42")))
torch.set_float32_matmul_precision("high")


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).unbind(2)  # (B, T, H, D) each
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, causal=True)
        return self.out(y.flatten(2))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).type_as(x)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class GPT(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.attention = nn.ModuleList(Attention() for _ in range(DEPTH))
        self.mlp = nn.ModuleList(MLP() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        size = WIDTH // HEADS
        rate = 10_000 ** (-torch.arange(0, size, 2) / size)
        angle = torch.arange(MAX_SEQ_LEN)[:, None, None] * rate  # (T, 1, D / 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, weight in self.named_parameters():
            nn.init.normal_(weight, std=0.02)
            if name.endswith(("out.weight", "down.weight")):  # a new block adds nothing
                nn.init.zeros_(weight)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the mean loss in nats, or without targets the logits, (B, T, V)."""
        x = self.embed(tokens)
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + attention(norm(x), self.cos, self.sin)
            x = x + mlp(norm(x))
        logits = self.head(norm(x))
        if targets is None:
            return logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def learning_rate(progress: float) -> float:
    """Return the share of LEARNING_RATE that is due after ``progress`` of the time."""
    if progress < WARM_UP:
        return (progress + 0.01) / (WARM_UP + 0.01)
    part = (progress - WARM_UP) / (1 - WARM_UP)
    return FINAL + (1 - FINAL) * (1 + math.cos(math.pi * part)) / 2


started = time.time()
tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size()).to(DEVICE)
parameters = sum(p.numel() for p in model.parameters())
matrices = [p for p in model.parameters() if p.ndim == 2]
optimizer = torch.optim.AdamW(matrices, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
compiled = torch.compile(model, dynamic=False) if ON_GPU else model
autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=ON_GPU)
batches = make_dataloader(tokenizer, ROWS, MAX_SEQ_LEN, "train")
x, y, epoch = next(batches)

step, counted = 0, 0.0
while counted < TIME_BUDGET:
    began = time.time()
    progress = counted / TIME_BUDGET
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE * learning_rate(progress)
    for _ in range(ACCUMULATE):
        with autocast:
            loss = compiled(x, y)
        (loss / ACCUMULATE).backward()
        x, y, epoch = next(batches)
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
