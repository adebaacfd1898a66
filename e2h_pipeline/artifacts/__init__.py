"""Immutable folders addressed by their origin: tables, hashes, manifests, the store, lineage."""
