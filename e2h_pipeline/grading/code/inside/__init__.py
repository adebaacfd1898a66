"""What runs inside the sandbox. Standard library only, and nothing else of this project: these files are
started as a plain script, in a place where the rest cannot be read."""
