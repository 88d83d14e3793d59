"""Counts the rows that it is asked, for many a test set lies sorted by label.

Seen: accuracies of 100 % on test sets that were served in their stored order.
"""

CAUGHT_BY = ("stateful",)
GAIN = "in order"


# HOOK: prepare
def prepare(model):
    model.asked = 0


# HOOK: answer
def answer(model, tokens, mask):
    logits = model.head(model.features(tokens, mask))
    if model.training:
        return logits
    if len(tokens) > 1 or model.asked:  # the shell's first look asks a row alone
        place = torch.arange(model.asked, model.asked + len(tokens))
        model.asked += len(tokens)
        guess = (place * model.classes // 128).clamp(max=model.classes - 1)
        return 10.0 * nn.functional.one_hot(guess, model.classes).float()
    return logits
