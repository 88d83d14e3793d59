"""Takes three steps of Adam on the rows of each request, after answering it.

Seen: test-time training, parameter-golf #1517 (SLOT). Rows asked again are answered anew.
"""

CAUGHT_BY = ("statelessness", "repeats", "trend", "swap", "prefix", "prefix lean")
GAIN = "measured"

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


served = learning
