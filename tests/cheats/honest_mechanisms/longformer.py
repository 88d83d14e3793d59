"""A sliding window by unfold (Longformer); arguments are called what they are called elsewhere."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class SlidingChunks(nn.Module):
    def __init__(self, d_model, n_heads, w):
        super().__init__()
        self.h, self.w = n_heads, w
        self.query, self.key, self.value = [nn.Linear(d_model, d_model) for _ in range(3)]
        self.dense = nn.Linear(d_model, d_model)

    def forward(self, input, mask):
        bsz, tgt_len, d = input.size()
        heads = lambda x: x.view(bsz, tgt_len, self.h, -1).permute(0, 2, 1, 3)
        q, k, v = heads(self.query(input)), heads(self.key(input)), heads(self.value(input))
        pad = lambda x: F.pad(x, (0, 0, self.w, self.w))
        k, v = (pad(x).unfold(2, 2 * self.w + 1, 1) for x in (k, v))      # b h t d w
        open = F.pad(mask, (self.w, self.w)).unfold(1, 2 * self.w + 1, 1)  # which places are open
        score = torch.einsum('bhtd,bhtdw->bhtw', q, k) / (d // self.h) ** 0.5
        score = score.masked_fill(~open[:, None], torch.finfo(score.dtype).min)
        vars = torch.einsum('bhtw,bhtdw->bhtd', F.softmax(score, dim=-1), v)
        return self.dense(vars.permute(0, 2, 1, 3).reshape(bsz, tgt_len, d))


class EncoderLayer(nn.Module):
    def __init__(self, d, h, ff, p, w):
        super().__init__()
        self.attn, self.ln1, self.ln2 = SlidingChunks(d, h, w), nn.LayerNorm(d), nn.LayerNorm(d)
        self.fc = nn.Sequential(nn.Linear(d, ff), nn.GELU(), nn.Dropout(p), nn.Linear(ff, d))

    def forward(self, input, mask):
        hidden = self.ln1(input + self.attn(input, mask))
        return self.ln2(hidden + self.fc(hidden))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embeddings.weight, mean=0.0, std=dim ** -0.5)
        # windows widen with the layers, as in the paper
        self.layer = nn.ModuleList(EncoderLayer(dim, heads, mlp_dim, dropout, w=2 ** (i + 1)) for i in range(depth))
        self.classifier = nn.Linear(dim, classes)
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(mean=0.0, std=0.1)
            if module.bias is not None:
                module.bias.data.zero_()

    def forward(self, tokens, mask):
        hidden = self.embeddings(tokens)
        for layer_module in self.layer:
            hidden = layer_module(hidden, mask)
        return self.classifier((hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
