"""``harness bundle``: packs a run. ``harness.report.bundle`` does the work."""

from hashlib import file_digest
from pathlib import Path
from typing import Annotated

import typer

from harness.base.commands import command as hint
from harness.cli.common import AsJson, guarded, print_json, run_path
from harness.report.bundle.pack import pack


@guarded
def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The archive: .tar.zst, or .tar.gz.")
    ] = Path("run.tar.zst"),
    json: AsJson = False,
) -> int:
    """Pack a run into one archive that a stranger can check: harness verify."""
    manifest = pack(run_path(run), out)
    with out.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if json:
        said = manifest.model_dump(mode="json")
        print_json({**said, "file": str(out), "bytes": out.stat().st_size, "sha256": digest})
    else:
        typer.echo(f"{out}: {len(manifest.files):,} files, {out.stat().st_size:,} bytes")
        typer.echo(f"sha256 {digest}")
        typer.echo(f"check it anywhere: {hint('verify', out)}")
    return 0
