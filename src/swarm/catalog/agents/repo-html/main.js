"use strict";

const { writeFileSync } = require("node:fs");
const path = require("node:path");

const { page } = require("./page.js");

/** Write `report.html` from the report that repo-score put together. */
async function handler(inputs, context) {
  writeFileSync(path.join(process.env.SWARM_OUTPUTS, "report.html"), page(inputs.report));
  return { report: context.files.output("report.html", { media_type: "text/html" }) };
}

module.exports = { handler };
