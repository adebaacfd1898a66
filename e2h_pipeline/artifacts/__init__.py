"""Artifacts: immutable folders addressed by what made them. Tables, hashes, manifests, the store, lineage."""
