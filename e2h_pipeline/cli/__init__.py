"""The command line `e2h`."""

from e2h_pipeline.cli.app import main

__all__ = ["main"]
