"""``harness agents``: lists the models. ``harness.agents.catalogue`` reads them."""

from harness.agents.catalogue import load_agents, today
from harness.cli.common import AgentsFile, AsJson, guarded, print_json
from harness.report.models import as_json, render


@guarded
def command(agents_file: AgentsFile = None, json: AsJson = False) -> int:
    """List the models: provider, limits, prices and their date, and whether the key is set."""
    entries = list(load_agents(agents_file).values())
    dates = sorted({e.price_date.isoformat() for e in entries if e.price_date})
    source = f"read {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else "none known"
    source += ", from the sources in harness/agents/agents.toml"
    if agents_file is not None:
        source += f" and from {agents_file}"
    if json:
        agents = [as_json(entry, today()) for entry in entries]
        print_json({"format": 1, "prices": source, "agents": agents})
    else:
        render(entries, today(), source=source)
    return 0
