"""The command line `e2h`."""
