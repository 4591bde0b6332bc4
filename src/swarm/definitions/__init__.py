"""Manifests and workflows as users write them, read into frozen, validated types."""
