"""harness policies"""

import typer

from harness.cli.common import AsJson, guarded, print_json
from harness.policies import POLICIES


@guarded
def command(json: AsJson = False) -> int:
    """List the search policies and the parameters that --set changes."""
    if json:
        listed = [
            {"name": p.name, "source": p.source, "parameters": p.describe()}
            for p in POLICIES.values()
        ]
        print_json({"format": 1, "policies": listed})
        return 0
    for policy in POLICIES.values():
        typer.echo(f"{policy.name}  {policy.__doc__}\n    source: {policy.source}")
        for p in policy.describe():
            setting = f"{policy.name}.{p['name']}={p['default']}"
            typer.echo(f"    {setting:<28} {p['about']} ({p['allowed']})")
    return 0
