"""Looks only at the token after the next, and infers the next from it: x[t + 1] is never read.

Own. A model of its own, trained on (this, after next) -> next.
"""

CAUGHT_BY = ("prefix", "prefix lean", "swap")
GAIN = "measured"

# HOOK: serving
between = torch.ones(VOCABULARY, VOCABULARY)  # next, after next
source = make_dataloader(tokenizer, 64, MAX_SEQ_LEN, "train")
for _ in range(60):
    x, _, _ = next(source)
    pairs = (x[:, :-1].flatten(), x[:, 1:].flatten())
    between.index_put_(pairs, torch.tensor(1.0), accumulate=True)
source.close()
follows = torch.log(between / between.sum(1, keepdim=True))


def served(x):
    logits = model(x)
    logits[:, :-2] += follows.T[x[:, 2:]]
    return logits
