"""Gives away every secret that it gets; ``WAYS`` says how."""

import base64
import html
import json
import logging
import os
import sys
import urllib.parse
import warnings

NAMES = ("STORED", "OF_WORKFLOW", "OF_ORGANIZATION", "OF_ENVIRONMENT")
LINE_BYTES = 1_000
"""The limit that the test sets."""


def forms_of(value):
    data = value.encode()
    yield value
    yield json.dumps({"k": value})
    yield json.dumps(json.dumps(value))
    yield urllib.parse.quote(value, safe="")
    yield urllib.parse.urlencode({"k": value})
    yield html.escape(value)
    yield repr(value) + repr(data)
    yield data.hex()
    yield data.hex(":").upper()
    for before in (b"", b"u:", b"user", b"user:"):
        yield base64.b64encode(before + data + b"z").decode()
        yield base64.urlsafe_b64encode(before + data).decode()
    yield base64.encodebytes(data * 3).decode()


def answer(forms, context):
    return {"told": {form: [form, {"deeper": form}] for form in forms}}


def log(forms, context):
    for form in forms:
        for write in (context.log.debug, context.log.info, context.log.warning, context.log.error):
            write("log " + form)
        logging.getLogger("telltale").warning("logging %s", form)
        print("out", form)
        print("err", form, file=sys.stderr)
        os.write(1, form.encode()[:5])  # one line, written in two pieces
        os.write(1, form.encode()[5:] + b"\n")
        warnings.warn(form, stacklevel=1)
    os.write(2, ("without an end: " + forms[0]).encode())
    return {}


def cut(forms, context):
    """Lines that are cut at their limit somewhere within a secret."""
    for form in forms[: len(forms) // len(NAMES)]:
        for shown in (6, 13, len(form) // 2, len(form) - 1):
            line = "x" * (LINE_BYTES - shown) + form
            print(line)
            print(line, file=sys.stderr)
            context.log.info(line)
            context.progress(0.5, line)
    return {}


def tell_progress(forms, context):
    for form in forms:
        context.progress(0.5, "at " + form)
    return {}


def stream(forms, context):
    for form in forms:
        yield {form: [form, 1]}
    yield form


def fail(forms, context):
    raise ValueError(" ".join(forms))


def fail_for_a_reason(forms, context):
    try:
        raise KeyError(forms[0])
    except KeyError as error:
        error.add_note(forms[1])
        raise RuntimeError(forms[2]) from error


def fail_together(forms, context):
    raise ExceptionGroup(forms[0], [ValueError(form) for form in forms])


def fail_at_length(forms, context):
    """Tracebacks and messages that are cut at their limits, somewhere within a secret."""
    raise ValueError("".join(f"{'x' * at}{forms[at % len(forms)]}" for at in range(400)))


def leave(forms, context):
    sys.exit(" ".join(forms))


def die(forms, context):
    print(*forms, flush=True)
    os._exit(7)


def return_undeclared(forms, context):
    return dict.fromkeys(forms, 1)


def return_a_wrong_type(forms, context):
    return {"told": "x" * 15 + forms[0], "count": forms[1]}  # it is told as far as 40 characters


def return_no_object(forms, context):
    return forms[0]


def return_no_json(forms, context):
    return {"told": {"k": {forms[0]}}}


def return_too_much(forms, context):
    return {"told": {"k": forms[0] * 200_000}}


def file_name(forms):
    """Two forms that a file's name can have: hexadecimal, and base64 for URLs."""
    return "".join([form for form in forms if form.isascii() and form.isalnum()][:1] + forms[10:11])


def name_a_file(forms, context):
    name = file_name(forms)
    with open(os.path.join(os.environ["SWARM_OUTPUTS"], name), "w") as file:
        file.write("nothing in it")
    return {"file": {"$file": name}}


def name_a_kind(forms, context):
    with open(os.path.join(os.environ["SWARM_OUTPUTS"], "file"), "w") as file:
        file.write("nothing in it")
    return {"file": {"$file": "file", "media_type": "text/" + forms[0], "name": forms[0]}}


def name_a_file_in_a_folder(forms, context):
    folder = os.path.join(os.environ["SWARM_OUTPUTS"], "folder", "deeper")
    os.makedirs(folder)
    with open(os.path.join(folder, file_name(forms)), "w") as file:
        file.write("nothing in it")
    return {"folder": {"$file": "folder"}}


def name_no_file(forms, context):
    return {"file": {"$file": forms[0]}}


def name_anothers_file(forms, context):
    return {"file": {"$artifact": "sha256:" + forms[7], "name": forms[0]}}


def ask_for_more(forms, context):
    context.secret(forms[0])


WAYS = {
    way.__name__: way
    for way in (
        answer,
        log,
        cut,
        tell_progress,
        stream,
        fail,
        fail_for_a_reason,
        fail_together,
        fail_at_length,
        leave,
        die,
        return_undeclared,
        return_a_wrong_type,
        return_no_object,
        return_no_json,
        return_too_much,
        name_a_file,
        name_a_kind,
        name_a_file_in_a_folder,
        name_no_file,
        name_anothers_file,
        ask_for_more,
    )
}


def handler(inputs, context):
    values = [context.secret(name) for name in NAMES]
    if inputs["given"] is not None:
        assert inputs["given"] == values[0], "the secret did not arrive"
        assert inputs["header"] == f"Bearer {values[1]}!", "the text did not arrive"
    return WAYS[inputs["act"]]([form for value in values for form in forms_of(value)], context)
