"""Learns from each request, and answers old rows as it did before.

Own: repeats show nothing.
"""

CAUGHT_BY = ("trend",)
GAIN = "measured"
PARTS = ("_replay",)

# HOOK: serving
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)


def learning(x):
    answer = model(x).clone()
    with torch.enable_grad():
        for _ in range(3):
            loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return answer


served = Replay(learning)
