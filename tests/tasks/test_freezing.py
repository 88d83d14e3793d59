"""Tests ``frozen.freeze``: which models can be exported to a file, and which cannot."""

import io
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
RUNTIME = Path(__file__).parents[2] / "tasks" / "autoresearch" / "runtime"


@pytest.fixture
def freeze(monkeypatch):
    monkeypatch.syspath_prepend(str(RUNTIME))
    monkeypatch.delitem(sys.modules, "frozen", raising=False)
    import frozen

    yield frozen.freeze
    sys.modules.pop("frozen", None)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50)

    def forward(self, x, y=None):
        logits = self.head(self.embed(x).cumsum(dim=1))
        return logits if y is None else logits.sum()


class Remembering(Model):
    def __init__(self):
        super().__init__()
        self.known = {}

    def forward(self, x):
        rows = [self.known.setdefault(tuple(row), len(self.known)) for row in x.tolist()]
        return super().forward(x) + torch.tensor(rows)[:, None, None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["module", "function", "compiled", "autocast"])
def test_a_frozen_model_answers_as_the_living_one(freeze, kind):
    model = Model().eval()
    served = {"function": lambda x: model(x), "compiled": torch.compile(model)}.get(kind, model)
    x = torch.randint(0, 50, (4, 8))
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"), torch.no_grad():
        file = freeze(served, (4, 8), "cpu")
        wanted = model(x)
    answer = torch.export.load(io.BytesIO(file)).module()(x)
    assert answer.dtype == wanted.dtype
    assert torch.equal(answer, wanted)


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_remembers_rows_is_not_frozen_and_says_why(freeze):
    with pytest.raises(Exception, match=r"\w") as raised:
        freeze(Remembering().eval(), (4, 8), "cpu")
    assert type(raised.value).__name__ == "NotFrozen"
    assert len(str(raised.value)) <= 300
