"""``harness doctor``: examines this machine. ``harness.report.diagnosis`` does the work."""

from dataclasses import asdict

import typer

from harness.cli.common import AsJson, guarded, print_json
from harness.report.diagnosis import diagnose


@guarded
def command(json: AsJson = False) -> int:
    """Say what this machine can do, and how to mend what it cannot."""
    findings = diagnose()
    if json:
        print_json({"format": 1, "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            typer.echo(finding.line())
    return 2 if any(f.blocks for f in findings) else 0
