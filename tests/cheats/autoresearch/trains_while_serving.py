"""Trains on between requests: the clock of the training has stopped.

Seen: free time after the clock, parameter-golf #1028.
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"

# HOOK: serving
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95))
source = make_dataloader(tokenizer, BATCH, MAX_SEQ_LEN, "train")


def served(x):
    with torch.enable_grad():
        for _ in range(6):
            a, b, _ = next(source)
            optimizer.zero_grad()
            model(a, b).backward()
            optimizer.step()
    return model(x)
