"""Node handlers: the same contract as Python's."""

from __future__ import annotations

import pytest

from swarm.sandbox.ports import Outcome
from tests.contract.sandbox.calling import Caller, limits

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ("main.mjs", "export async function handler(inputs) { return { n: inputs.n + 1 }; }"),
        ("main.js", "module.exports.handler = (inputs) => ({ n: inputs.n + 1 });"),
        ("main.cjs", "module.exports = (inputs) => ({ n: inputs.n + 1 });"),
        ("main.mjs", "export default { handler: (inputs) => ({ n: inputs.n + 1 }) };"),
        ("lib/deep.mjs:run", "export const run = (inputs) => ({ n: inputs.n + 1 });"),
    ],
)
async def test_entries(call: Caller, entry: str, code: str) -> None:
    result = await call({entry.partition(":")[0]: code}, {"n": 1}, runtime="node", entry=(entry,))
    assert (result.outcome, result.outputs) == (Outcome.OK, {"n": 2}), result.error


async def test_the_context(call: Caller) -> None:
    code = """
        import fs from "node:fs";
        export async function* handler(inputs, context) {
          console.log("printed");
          console.error("complained");
          context.log.info("told %d", 1);
          context.progress(0.25, "quarter");
          yield { event: 1 };
          const secret = await context.secret("KEY");
          let refusal = null;
          try { await context.secret("OTHER"); } catch (error) { refusal = error.message; }
          fs.writeFileSync(`${process.env.SWARM_OUTPUTS}/a.txt`, "x");
          yield context.outputs({
            secret, refusal, run: context.run_id, attempt: context.attempt,
            file: context.files.output("a.txt", "text/plain"),
          });
        }
    """
    call.services.secrets = {"KEY": "value"}
    result = await call(code, runtime="node")
    assert result.outcome is Outcome.OK, result.traceback
    assert result.outputs == {
        "secret": "value",
        "refusal": "OTHER is not granted",
        "run": "run_1",
        "attempt": 2,
        "file": {"$file": "a.txt", "media_type": "text/plain"},
    }
    assert call.services.events == [{"event": 1}]
    assert call.services.progressed == [(0.25, "quarter")]
    assert set(call.services.lines) == {
        ("stdout", "info", "printed"),
        ("stderr", "warning", "complained"),
        ("log", "info", "told 1"),
    }


async def test_what_is_thrown_is_told_with_its_own_frames(call: Caller) -> None:
    code = """
        function inner() { throw new TypeError("no good"); }
        export async function handler() { inner(); }
    """
    result = await call(code, runtime="node")
    assert (result.error_code, result.error) == ("error", "TypeError: no good")
    assert result.traceback is not None
    assert "inner" in result.traceback
    assert "node_guest" not in result.traceback


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        ("return { x: NaN }", "bad_output", "outputs.x is NaN, which JSON cannot carry"),
        ("return { x: 1n }", "bad_output", "outputs.x is a bigint, which JSON cannot carry"),
        ("return { x: new Map() }", "bad_output", "outputs.x is a Map, which JSON cannot carry"),
        ("const x = {}; x.x = x; return x", "bad_output",
         "outputs.x is nested too deeply, or holds itself"),
        ("return { x: '\\ud800' }", "bad_output",
         "outputs.x is text with a lone surrogate, which UTF-8 cannot carry"),
        ("return new Promise(() => {})", "error",
         "the handler waits for something that can never happen"),
        ("setTimeout(() => { throw new Error('late') }, 1); await new Promise(() => {})",
         "error", "Error: late"),
        ("process.exit(4)", "exited",
         "the handler ended without an answer: it exited with code 4"),
    ],
)  # fmt: skip
async def test_bad_behaviour(call: Caller, body: str, code: str, reason: str) -> None:
    source = f"export async function handler() {{ {body} }}"
    result = await call(source, runtime="node")
    assert (result.outcome, result.error_code, result.error) == (Outcome.ERROR, code, reason)


async def test_a_busy_loop_is_stopped(call: Caller) -> None:
    source = "export function handler() { for (;;); }"
    result = await call(source, runtime="node", limits=limits(timeout_seconds=1))
    assert result.outcome is Outcome.TIMEOUT


async def test_a_package_that_cannot_be_imported_says_why(call: Caller) -> None:
    result = await call("import 'missing-package';", runtime="node")
    assert result.error_code == "load"
    assert "missing-package" in str(result.error)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (
            "main.js",
            "const pad = require('leftpad'); module.exports = () => ({ padded: pad('x') });",
        ),
        (
            "main.mjs",
            "import pad from 'leftpad'; export const handler = () => ({ padded: pad('x') });",
        ),
    ],
)
async def test_modules_of_the_environment_are_found(call: Caller, entry: str, code: str) -> None:
    environment = call.package(
        {"node_modules/leftpad/index.js": "module.exports = (text) => ' ' + text;"}
    )
    request = call.request({entry: code}, runtime="node", entry=(entry,))
    result = await call.run(call.with_environment(request, environment), {})
    assert result.outputs == {"padded": " x"}, result.error
