"""Statements over the tables, shared by all databases; each function is one operation."""
