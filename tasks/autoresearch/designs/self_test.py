"""What tests the sandbox: one step of the smallest model, served. Not a reference design."""

import torch
import torch.nn.functional as F
from prepare import MAX_SEQ_LEN, Tokenizer, evaluate_bpb, make_dataloader
from torch import Tensor, nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS = 4


class Next(nn.Module):
    """Logits, (B, T, V), from the last token alone."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 4)
        self.head = nn.Linear(4, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens))


tokenizer = Tokenizer.from_directory()
model = Next(tokenizer.get_vocab_size()).to(DEVICE)
x, y, _ = next(make_dataloader(tokenizer, ROWS, MAX_SEQ_LEN, "train"))
F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
evaluate_bpb(model.eval(), tokenizer, ROWS)
