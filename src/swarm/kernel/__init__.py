"""What every room stands on: ids, clock, errors, settings, canonical JSON."""
