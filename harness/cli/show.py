"""``harness show``: shows a run or a node. ``harness.report.tree_view`` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import AsJson, guarded, print_json, run_path
from harness.report import tree_view


@guarded
def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    node: Annotated[
        int | None, typer.Option(help="One node: its diff to the parent, evidence and log.")
    ] = None,
    files: Annotated[bool, typer.Option(help="With --node: whole files, not the diff.")] = False,
    json: AsJson = False,
) -> int:
    """Show a run's tree with its scores, or one node in full."""
    path = run_path(run)
    if json:
        print_json(tree_view.as_json(path, node))
    elif node is None:
        tree_view.show_tree(path)
    else:
        tree_view.show_node(path, node, whole=files)
    return 0
