"""harness agents"""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import AsJson, guarded, print_json

AgentsFile = Annotated[
    Path | None,
    typer.Option(
        "--agents-file",
        envvar="HARNESS_AGENTS",
        help="A table of your own models and prices, over ours.",
    ),
]


@guarded
def command(agents_file: AgentsFile = None, json: AsJson = False) -> int:
    """List the models: provider, limits, prices and their date, and whether the key is set."""
    from harness.agents.catalogue import load_agents, today
    from harness.report.models import listing, render

    entries = list(load_agents(agents_file).values())
    rows = listing(entries, today())
    dates = sorted({e.price_date.isoformat() for e in entries if e.price_date})
    source = f"read {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else "none known"
    source += ", from the sources in harness/agents/agents.toml"
    if agents_file is not None:
        source += f" and from {agents_file}"
    if json:
        print_json({"format": 1, "prices": source, "agents": rows})
    else:
        render(rows, source=source)
    return 0
