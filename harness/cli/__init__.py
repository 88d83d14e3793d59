"""The command line. Nothing heavy is imported here: ``harness --help`` must answer at once."""


def main() -> None:
    """Entry point of the ``harness`` command."""
    from harness.cli.app import app

    app()
