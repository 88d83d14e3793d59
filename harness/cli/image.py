"""harness image build"""

from typing import Annotated

import typer

from harness.cli.common import AsJson, guarded, print_json

app = typer.Typer(no_args_is_help=True, help="The image of the sandbox docker.")


@app.callback()
def group() -> None:
    """Make the image that the sandbox docker runs submissions in."""


@app.command("build")
@guarded
def command(
    base: Annotated[
        str | None, typer.Option(help="An image with Python [default: a Debian is made].")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Its tag [default: a hash of what goes in].")
    ] = None,
    torch_index: Annotated[
        str | None, typer.Option(help="One more package index, for the build of torch.")
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="By the Dockerfile, with CUDA; needs a registry.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Make the image of the sandbox docker, without a registry (a minute or two, 1 GB)."""
    from sandboxes.image.build import build, with_dockerfile

    def say(line: str) -> None:
        typer.echo(line, err=True)

    if gpu:
        name = with_dockerfile(base=base, tag=tag, say=say)
    else:
        name = build(base=base, tag=tag, torch_index=torch_index, say=say)
    if json:
        print_json({"format": 1, "image": name})
    else:
        typer.echo(f"{name} is what --sandbox docker uses now")
    return 0
