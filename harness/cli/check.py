"""``harness check``: gates a change. ``harness.report.gate`` does the tests."""

from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import ConfigError
from harness.base.files import write_whole
from harness.cli.common import AsJson, guarded, print_json
from harness.cli.runs import Across, checked_across, entries_at
from harness.report import gate, gate_text


@guarded
def command(
    places: Annotated[
        list[Path], typer.Argument(metavar="RUNS", help="Runs of the change, or folders of them.")
    ],
    baseline: Annotated[Path, typer.Option(help="What `harness baseline` printed.")],
    max_drop: Annotated[
        str, typer.Option(help="How much worse is allowed: of the baseline's mean (0.5%), or 0.01.")
    ] = "0.5%",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Check only this task of the baseline; repeatable."),
    ] = None,
    across: Across = None,
    level: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="1 minus the intervals' coverage.")
    ] = 0.05,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML here.")] = None,
    json: AsJson = False,
) -> int:
    """Gate a change: exit 0 no regression, 1 regression, 5 cannot tell (how many more seeds)."""
    drop = gate.AllowedDrop.parse(max_drop)
    checked = gate.check(
        gate.load_baseline(baseline),
        entries_at(places),
        drop,
        level=level,
        across=checked_across(across),
        tasks=task or (),
    )
    if junit is not None:
        try:
            write_whole(junit, gate_text.junit(checked, drop, level))
        except OSError as error:
            raise ConfigError(f"{junit} cannot be written.", cause=str(error)) from error
    if json:
        print_json(gate.as_json(checked, drop, level))
    else:
        typer.echo(gate_text.text_of(checked, drop, level))
    return gate.exit_code(checked)
