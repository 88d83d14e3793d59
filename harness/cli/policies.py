"""``harness policies``: lists the search policies. ``harness.policies`` holds them."""

import typer

from harness.cli.common import AsJson, guarded, print_json
from harness.policies import POLICIES


@guarded
def command(json: AsJson = False) -> int:
    """List the search policies and the parameters that --set changes."""
    policies, added = POLICIES.usable(), POLICIES.added()
    if json:
        listed = [
            {"name": p.name, "source": p.source, "parameters": p.describe()}
            for p in policies.values()
        ]
        print_json({"format": 1, "policies": listed})
        return 0
    for name, policy in policies.items():
        by = f"    of the package {added[name]}\n" if name in added else ""
        typer.echo(f"{name}  {policy.__doc__}\n{by}    source: {policy.source}")
        for p in policy.describe():
            setting = f"{policy.name}.{p['name']}={p['default']}"
            typer.echo(f"    {setting:<28} {p['about']} ({p['allowed']})")
    for error in POLICIES.broken().values():
        typer.echo(f"broken: {error.message}\n    {error.cause or error.remedy}")
    return 0
