"""A package that does its worst while it is imported, which may be before it is called."""

import json
import os

import batch

_FACT = "SWARM_INVOCATION_ID"
_IMPORTED_WITH = {"fact": os.environ.get(_FACT), "inputs": os.listdir("/inputs")}
_VERDICTS = batch.run(**json.loads(os.environ["ATTACKS"]))


def handler(inputs):
    called_with = {"fact": os.environ.get(_FACT), "inputs": inputs["many"]}
    return {"verdicts": _VERDICTS, "imported": _IMPORTED_WITH, "called": called_with}
