"""``harness image build``: builds the docker image. ``sandboxes.image`` does the work."""

from typing import Annotated

import typer

from harness.base.errors import ConfigError
from harness.cli.common import AsJson, guarded, print_json
from sandboxes.image.build import build, with_dockerfile

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """The image of the sandbox docker."""


@app.command("build")
@guarded
def command(
    base: Annotated[
        str | None, typer.Option(help="An image with Python (default: a Debian is made).")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Its tag (default: a hash of what goes in).")
    ] = None,
    torch_index: Annotated[
        str | None, typer.Option(help="One more package index, for the build of torch.")
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="With what Triton compiles with, for torch's CUDA build.")
    ] = False,
    dockerfile: Annotated[
        bool,
        typer.Option("--dockerfile", help="By the Dockerfile (CUDA base); needs a registry."),
    ] = False,
    json: AsJson = False,
) -> int:
    """Make the image of the sandbox docker, without a registry (a minute or two, 1 GB)."""

    def say(line: str) -> None:
        typer.echo(line, err=True)

    if dockerfile:
        if torch_index:
            raise ConfigError(
                "--torch-index means nothing to the Dockerfile.",
                remedy="leave --dockerfile out; or set PIP_EXTRA_INDEX_URL in an image of your own "
                "and name it with --base",
            )
        name = with_dockerfile(base=base, tag=tag, say=say)
    else:
        name = build(base=base, tag=tag, torch_index=torch_index, gpu=gpu, say=say)
    if json:
        print_json({"format": 1, "image": name})
    else:
        typer.echo(f"{name} is what --sandbox docker uses now")
    return 0
