"""A residual network in one dimension: BatchNorm everywhere, a squeeze of the batch's wrong axis avoided."""
import torch
import torch.nn as nn


def conv3(in_planes, out_planes, stride=1, dilation=1):
    return nn.Conv1d(in_planes, out_planes, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


class BasicBlock(nn.Module):
    expansion: int = 1

    def __init__(self, inplanes, planes, dilation=1, zero_init_residual=True):
        super().__init__()
        self.conv1, self.bn1 = conv3(inplanes, planes, dilation=dilation), nn.BatchNorm1d(planes)
        self.conv2, self.bn2 = conv3(planes, planes, dilation=dilation), nn.BatchNorm1d(planes, momentum=0.3)
        self.relu = nn.ReLU(inplace=True)
        self.gc = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Conv1d(planes, planes, 1), nn.Sigmoid())  # global context
        if zero_init_residual:
            nn.init.constant_(self.bn2.weight, 0.1)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        gate = self.gc(out)
        return self.relu(out * gate + x)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleList()
        for i in range(depth):
            self.layers.append(BasicBlock(dim, dim, dilation=2 ** (i % 4)))
        self.fc = nn.Sequential(nn.Linear(dim, mlp_dim), nn.BatchNorm1d(mlp_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(mlp_dim, classes))
        for m in self.modules():
            if isinstance(m, nn.Conv1d):
                nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')

    @torch.jit.ignore
    def num_layers(self):
        return len(self.layers)

    def forward(self, tokens, mask):
        x = (self.embed(tokens) * mask[..., None]).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        x = (x * mask[:, None]).sum(-1) / mask.sum(-1, keepdim=True)
        return self.fc(x)
