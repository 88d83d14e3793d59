"""The table of models: prices, retirement, and whether the API key of each is set."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table
from rich.text import Text

from harness.agents import AGENTS
from harness.agents.catalogue import ModelEntry, TokenPrice
from harness.base.numbers import short_count
from harness.report.terminal import draw, min_width, stdout


def as_json(entry: ModelEntry, today: date) -> dict[str, Any]:
    """Return a model as JSON values. Unknown prices are None."""
    return {
        "agent": entry.name,
        "title": entry.title,
        "paper": entry.paper,
        "maker": entry.maker,
        "provider": entry.provider,
        "server": urlsplit(entry.base_url).netloc if entry.base_url else None,
        "model": entry.model,
        "context_tokens": entry.context_tokens,
        "max_input_tokens": entry.max_input_tokens,
        "max_output_tokens": entry.max_output_tokens,
        "efforts": list(entry.effort.values) if entry.effort else [],
        "temperature": entry.temperature,
        "dollars_per_million": [p.model_dump() for p in entry.prices] or None,
        "price_date": entry.price_date.isoformat() if entry.price_date else None,
        "price_source": entry.price_source,
        "key": entry.key,
        "key_present": bool(entry.read_key()),
        "shut": entry.is_shut(today),
        "retires": entry.retires.model_dump(mode="json") if entry.retires else None,
        "successor": entry.successor,
        "status": _status(entry, today),
        "note": entry.note,
    }


def _status(entry: ModelEntry, today: date) -> str:
    if entry.retires is None:
        return ""
    if entry.retires.kind == "shut":
        return f"{'shut' if entry.is_shut(today) else 'shuts'} {entry.retires.on}"
    return f"{'may be shut' if today >= entry.retires.on else 'not before'} {entry.retires.on}"


COLUMNS = ("agent", "maker", "model id", "limits", "$ in/cached/out", "read", "key", "status")
OPTIONAL = ("maker", "model id", "read", "limits")
"""Columns left out on a narrow terminal: the first three, or all. ``--json`` has them."""


def render(entries: list[ModelEntry], today: date, *, source: str) -> None:
    """Print the table on stdout; below it, the successors of models and the source of prices."""
    console = stdout()
    choices = [[n for n in COLUMNS if n not in gone] for gone in ((), OPTIONAL[:3], OPTIONAL)]
    tables = [_table(entries, today, shown) for shown in choices]
    draw(console, next((t for t in tables if min_width(console, t) <= console.width), tables[-1]))
    follow = [f"{e.name} → {e.successor}" for e in entries if e.successor]
    for line in (
        "Above the gap: the models of arXiv 2605.15871. Dollars per million tokens; + dearer for "
        "long prompts (--json). Limits: context/answer, tokens.",
        f"Prices: {source}. Unknown is not 0: a budget in dollars needs a price of your own "
        "(docs/guides/models.md).",
        f"Successors: {', '.join(follow)}." if follow else "",
        "Key own: it runs on your server (--base-url). "
        f"Without a model: {', '.join(AGENTS.names())}. "
        "A recorded run again: replay:RUN.",
    ):
        console.print(Text(line, style="dim"), soft_wrap=False)


def _table(entries: list[ModelEntry], today: date, shown: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    right = ("limits", "$ in/cached/out")
    for name in shown:
        table.add_column(name, no_wrap=True, justify="right" if name in right else "left")
    for paper in (True, False):
        for entry in (e for e in entries if e.paper is paper):
            cells = dict(zip(COLUMNS, _cells(entry, today), strict=True))
            style = "dim" if entry.is_shut(today) else ""
            table.add_row(*(cells[n] for n in shown), style=style)
        if paper:
            table.add_row()
    return table


def _cells(entry: ModelEntry, today: date) -> list[Text]:
    key = Text("set", style="green") if entry.read_key() else Text("missing", style="yellow")
    if not entry.base_url:
        key = Text("own")
    return [
        Text(entry.name, style="bold"),
        Text(entry.maker),
        Text(entry.model),
        Text(f"{short_count(entry.context_tokens)}/{short_count(entry.max_output_tokens)}"),
        Text(_prices(entry.prices)),
        Text(str(entry.price_date or "")),
        key,
        Text(_status(entry, today), style="red" if entry.is_shut(today) else ""),
    ]


def _prices(bands: Sequence[TokenPrice]) -> str:
    if not bands:
        return "unknown"
    first = (bands[0].input, bands[0].cached, bands[0].output)
    shown = "/".join("?" if price is None else f"{price:g}" for price in first)
    return shown + ("+" if len(bands) > 1 else "")
