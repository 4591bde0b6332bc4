"""The words of the expression language: what each means, and an example.

The reference is generated from these tables, and tests evaluate every example.
"""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """A filter or a test."""

    meaning: str
    example: str


FILTERS: dict[str, Word] = {
    "abs": Word("the number without its sign", "-3|abs"),
    "bool": Word("whether the value counts as true", "[]|bool"),
    "capitalize": Word(
        "the text with a capital first letter, the others small", "'hi ALL'|capitalize"
    ),
    "chain": Word("one array after the other", "[1]|chain([2, 3])"),
    "count": Word("same as `length`", "[1, 2]|count"),
    "d": Word("same as `default`", "inputs.absent|d(1)"),
    "default": Word(
        "another value where there is none; with `true` also for empty ones",
        "''|default('x', true)",
    ),
    "dictsort": Word("the pairs of an object by key", "{'b': 1, 'a': 2}|dictsort"),
    "first": Word("the first entry", "[1, 2]|first"),
    "float": Word("the number that a text says", "'2.5'|float"),
    "groupby": Word(
        "entries that share a value, by that value", "[{'a': 1}, {'a': 1}]|groupby('a')"
    ),
    "int": Word("the whole number that a text says", "'12'|int"),
    "items": Word("the pairs of an object", "{'a': 1}|items"),
    "join": Word("the entries as one text", "['a', 'b']|join(', ')"),
    "last": Word("the last entry", "[1, 2]|last"),
    "length": Word("how many entries or characters", "'abc'|length"),
    "lines": Word("the lines of a text", "'a\\nb'|lines"),
    "list": Word("the entries, keys or characters as an array", "'ab'|list"),
    "lower": Word("the text in small letters", "'Ab'|lower"),
    "map": Word(
        "an attribute of each entry, or a filter applied to each", "[{'a': 1}]|map(attribute='a')"
    ),
    "max": Word("the largest entry", "[1, 3, 2]|max"),
    "min": Word("the smallest entry", "[1, 3, 2]|min"),
    "reject": Word("the entries that fail a test", "[1, 2, 3]|reject('odd')"),
    "rejectattr": Word(
        "the entries whose attribute fails a test", "[{'a': 1}, {'a': 2}]|rejectattr('a', 'odd')"
    ),
    "replace": Word("the text with each occurrence replaced", "'a-b'|replace('-', '+')"),
    "reverse": Word("backwards", "[1, 2]|reverse"),
    "round": Word("the number rounded", "2.345|round(2)"),
    "select": Word("the entries that pass a test", "[1, 2, 3]|select('odd')"),
    "selectattr": Word(
        "the entries whose attribute passes a test",
        "[{'a': 1}, {'a': 2}]|selectattr('a', 'eq', 2)",
    ),
    "sort": Word("the entries in order", "[3, 1, 2]|sort(reverse=true)"),
    "split": Word("the text cut into parts", "'a,b'|split(',')"),
    "string": Word("text as it is, another value as JSON", "[1]|string"),
    "sum": Word("the entries added up", "[1, 2]|sum"),
    "title": Word("the text with every word's first letter a capital", "'a day'|title"),
    "tojson": Word("the value as JSON", "'a'|tojson"),
    "trim": Word("the text without space around it", "' a '|trim"),
    "unique": Word("the entries without repeats", "[1, 1, 2]|unique"),
    "upper": Word("the text in capitals", "'ab'|upper"),
    "urlencode": Word("the text as part of a URL", "'a b'|urlencode"),
    "zip": Word("pairs of entries of two arrays", "[1, 2]|zip(['a', 'b'])"),
}

TESTS: dict[str, Word] = {
    "boolean": Word("true or false", "true is boolean"),
    "defined": Word("there is such a value", "inputs.absent is defined"),
    "divisibleby": Word("divisible without rest", "6 is divisibleby(3)"),
    "endingwith": Word("text that ends so", "'abc' is endingwith('c')"),
    "eq": Word("equal; also `equalto`", "1 is eq(1)"),
    "equalto": Word("equal", "1 is equalto(1)"),
    "even": Word("an even number", "2 is even"),
    "false": Word("false itself", "false is false"),
    "float": Word("a number with a fraction", "1.5 is float"),
    "ge": Word("at least", "2 is ge(2)"),
    "greaterthan": Word("more than", "2 is greaterthan(1)"),
    "gt": Word("more than; also `greaterthan`", "2 is gt(1)"),
    "in": Word("one of", "1 is in([1, 2])"),
    "integer": Word("a whole number", "1 is integer"),
    "iterable": Word("something with entries", "[1] is iterable"),
    "le": Word("at most", "2 is le(2)"),
    "lessthan": Word("less than", "1 is lessthan(2)"),
    "lower": Word("text in small letters", "'a' is lower"),
    "lt": Word("less than; also `lessthan`", "1 is lt(2)"),
    "mapping": Word("an object", "{} is mapping"),
    "ne": Word("not equal", "1 is ne(2)"),
    "none": Word("null", "none is none"),
    "number": Word("a number", "1.5 is number"),
    "odd": Word("an odd number", "1 is odd"),
    "sequence": Word("an array", "[1] is sequence"),
    "startingwith": Word("text that begins so", "'abc' is startingwith('a')"),
    "string": Word("text", "'a' is string"),
    "true": Word("true itself", "true is true"),
    "undefined": Word("there is no such value", "inputs.absent is undefined"),
    "upper": Word("text in capitals", "'A' is upper"),
}

FILTERS_TO_MAP = frozenset(FILTERS) - {
    "chain", "d", "default", "groupby", "map", "reject", "rejectattr", "select", "selectattr", "zip"
}  # fmt: skip
"""What ``map`` may apply: filters whose result is not larger than what one entry holds."""

REMOVED_FILTERS = tuple(
    "attr batch e escape format indent pprint safe slice truncate wordcount wordwrap".split()  # noqa: SIM905
)
REMOVED_TESTS = ("escaped", "filter", "sameas", "safe", "test")
REMOVED_GLOBALS = ("cycler", "debug", "dict", "joiner", "namespace", "range")
"""What MiniJinja has and this language has not: it could grow without limit, leak or escape."""
