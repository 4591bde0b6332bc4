"""How results look: tables, graphs, the live view. Nothing here reads or decides."""
