"""The handler that rehearsals load."""


def handler(inputs, context):  # type: ignore[no-untyped-def]
    return inputs
