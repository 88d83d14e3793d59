"""The same answer everywhere: how often each token was seen in training."""

# HOOK: serving
source = make_dataloader(tokenizer, 64, MAX_SEQ_LEN, "train")
often = torch.bincount(next(source)[0].flatten(), minlength=VOCABULARY) + 0.1
source.close()


def served(x):
    return (often / often.sum()).log().expand(*x.shape, VOCABULARY)
