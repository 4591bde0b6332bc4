"""A package of one handler, called before the snapshot so that nothing happens first after it."""


def handler(inputs, context):  # type: ignore[no-untyped-def]
    return inputs
