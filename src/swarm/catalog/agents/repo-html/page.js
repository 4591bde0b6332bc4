"use strict";

/** The page: sections in the order of the Markdown report. */

const { readFileSync } = require("node:fs");
const path = require("node:path");

const { languageBar, monthColumns, number, percent, scoreRing } = require("./charts.js");
const { html, verbatim } = require("./html.js");

const MOST_ROWS = 20;
const TOTALS = [
  ["files", "Files"],
  ["text_files", "of them text"],
  ["binary_files", "of them binary"],
  ["oversized_files", "of them too large to read"],
  ["vendored_files", "of them vendored"],
  ["generated_files", "of them generated"],
  ["missing_files", "Tracked but missing"],
  ["symlinks", "Symbolic links"],
  ["submodules", "Submodules"],
  ["lines", "Lines"],
  ["blank_lines", "of them blank"],
  ["vendored_lines", "of them vendored"],
  ["generated_lines", "of them generated"],
];

/** The whole document as a string. */
function page(report) {
  const style = readFileSync(path.join(__dirname, "page.css"), "utf8");
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Swarm repo-report">
<title>Repository report: ${report.name}</title>
<style>${verbatim(style)}</style>
</head>
<body>
<header>
<div class="hero">
${scoreRing(report.score, report.grade)}
<div>
<p class="kicker">Repository report</p>
<h1>${text(report.name)} <span class="grade grade-${report.grade}">Grade ${report.grade}</span></h1>
<p class="lead">${text(report.summary)}</p>
<p class="quiet">As of ${report.activity.as_of}${head(report.activity)}</p>
</div>
</div>
</header>
<main>
${reasons(report.reasons)}
${languages(report.files.languages)}
${files(report.files)}
${activity(report.activity)}
${tests(report.tests)}
${dependencies(report.dependencies)}
${licence(report.licence)}
${debt(report.debt)}
</main>
<footer><p>Made by Swarm’s workflow <code>repo-report</code>. This page loads nothing and runs no script.</p></footer>
</body>
</html>
`.text;
}

function head({ head: at }) {
  if (!at || !at.commit) return "";
  const where = at.detached ? "detached at" : html`branch <bdi>${at.branch}</bdi> at`;
  return html`, ${where} <code>${at.commit.slice(0, 12)}</code>`;
}

function reasons(rows) {
  const items = rows.map((row) => {
    const share = row.points === null ? 0 : row.points / row.max_points;
    const level = row.points === null ? "none" : share >= 0.75 ? "good" : share >= 0.4 ? "fair" : "poor";
    return html`<tr><th scope="row">${row.area}</th>
<td class="number">${row.points === null ? "–" : `${row.points} / ${row.max_points}`}</td>
<td class="meter"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="8" rx="4"/><rect class="${level}" width="${(100 * share).toFixed(0)}" height="8" rx="4"/></svg></td>
<td>${text(row.reason)}</td></tr>`;
  });
  return section("score", "What the score is made of", html`<div class="scroll"><table>
<caption>Points by area; an area that could not be judged (–) is left out of the reckoning</caption>
<thead><tr><th scope="col">Area</th><th scope="col" class="number">Points</th><th scope="col" class="meter"><span class="unseen">Share</span></th><th scope="col">Reason</th></tr></thead>
<tbody>${items}</tbody></table></div>`);
}

function languages(found) {
  if (found.items.length === 0) return section("languages", "Languages", html`<p>There are no text files.</p>`);
  const rows = found.items.slice(0, MOST_ROWS).map((row) => [
    text(row.name), row.type, count(row.files), count(row.lines), count(row.blank_lines), percent(row.share),
  ]);
  return section("languages", "Languages", html`${languageBar(found.items)}
${table("The project’s own text by language", ["Language", "Kind", "#Files", "#Lines", "#Blank lines", "#Share of lines"], rows)}
${more(found.total, rows.length, "languages")}`);
}

function files(found) {
  const kept = new Set(["files", "text_files", "lines"]);
  const rows = TOTALS.filter(([key]) => found.totals[key] > 0 || kept.has(key)).map(([key, label]) => [
    label.startsWith("of them") ? html`<span class="part">${label}</span>` : label, count(found.totals[key]),
  ]);
  const largest = found.largest_files.map((row) => [filePath(row.path), size(row.bytes)]);
  const submodules = found.submodules.items.map((one) => html`<li>${filePath(one)}</li>`);
  return section("files", "Files", html`${found.notes.map(note)}
<div class="columns">
${table("Everything tracked", ["What", "#Count"], rows)}
${largest.length > 0 && table("Largest files", ["File", "#Size"], largest)}
</div>
${submodules.length > 0 && html`<h3>Submodules (not entered)</h3><ul>${submodules}</ul>${more(found.submodules.total, submodules.length, "submodules")}`}`);
}

function activity(found) {
  if (!found.available) return section("activity", "Activity", note(`History not available: ${found.reason}`));
  if (found.commits === 0) return section("activity", "Activity", html`<p>There are no commits yet.</p>`);
  const rows = found.contributors.items.map((row) => [
    html`${text(row.name)}${row.bot && html` <span class="tag">bot</span>`}`,
    count(row.commits), percent(row.share), row.first, row.last,
  ]);
  return section("activity", "Activity", html`${found.shallow && note("The clone is shallow: older commits are not in these figures.")}
${found.truncated && note("Counting stopped at its limit: there are more commits.")}
<dl class="figures">
${figure(found.commits, "commits", "commit")}${figure(found.contributors.total, "contributors", "contributor")}${figure(found.commits_last_90_days, "in the last 90 days")}${figure(found.commits_last_365_days, "in the last 365 days")}${figure(found.half_of_commits_by, "people made half of them", "person made half of them")}
</dl>
<p>From ${found.first_commit.slice(0, 10) || "an unknown date"} to ${found.last_commit.slice(0, 10) || "an unknown date"}, ${number.format(found.merges)} of them merges.</p>
<h3>Commits per month</h3>
${monthColumns(found.months)}
${table("Contributors by commits", ["Name", "#Commits", "#Share", "First", "Last"], rows)}
${more(found.contributors.total, rows.length, "contributors")}`);
}

function tests(found) {
  const named = (rows) => rows.map((row) => [text(row.name), filePath(row.evidence)]);
  return section("tests", "Tests", html`<dl class="figures">
${figure(found.test_files, "test files", "test file")}${figure(found.test_lines, "lines of tests")}${figure(found.source_lines, "lines of other code")}${figure(found.ratio.toFixed(2), "lines of tests per line of code")}
</dl>
<div class="columns">
${found.frameworks.items.length > 0 && table("Test frameworks", ["Framework", "Recognised by"], named(found.frameworks.items))}
${found.ci.items.length > 0 && table("Continuous integration", ["System", "Configured in"], named(found.ci.items))}
</div>`);
}

function dependencies(found) {
  if (found.manifests.total === 0) {
    return section("dependencies", "Dependencies", html`<p>No manifest declares any.</p>`);
  }
  const scopes = (row) => Object.entries(row.scopes).map(([name, value]) => `${name} ${number.format(value)}`).join(", ");
  const byEcosystem = found.ecosystems.map((row) => [text(row.name), count(row.manifests), count(row.dependencies), scopes(row)]);
  const rows = found.dependencies.items.map((row) => [text(row.name), text(row.constraint || "any"), row.scope, filePath(row.manifest)]);
  const locks = found.lockfiles.items.map((row) => html`<li>${filePath(row.path)} (${row.ecosystem})</li>`);
  return section("dependencies", "Dependencies", html`<p>${number.format(found.total)} declared, ${number.format(found.unconstrained)} without a version.</p>
${table("By ecosystem", ["Ecosystem", "#Manifests", "#Dependencies", "By scope"], byEcosystem)}
${found.problems.items.map((row) => note(`${row.path}: ${row.reason}`))}
${rows.length > 0 && html`<details><summary>${entries(rows.length, found.dependencies.total)}</summary>${table("Dependencies as declared", ["Name", "Version", "Scope", "Declared in"], rows)}</details>`}
${locks.length > 0 ? html`<h3>Lock files</h3><ul>${locks}</ul>` : html`<p class="quiet">No lock file.</p>`}`);
}

function entries(given, total) {
  if (given < total) return `The first ${number.format(given)} of ${number.format(total)} entries`;
  return total === 1 ? "The one entry" : `All ${number.format(total)} entries`;
}

function licence(found) {
  const rows = [
    ...found.licences.items.map((row) => [text(row.id), text(row.name), filePath(row.path)]),
    ...found.declared.items.map((row) => [text(row.value), html`<span class="quiet">declared</span>`, filePath(row.path)]),
    ...found.unrecognised.items.map((one) => ["unknown", html`<span class="quiet">not recognised</span>`, filePath(one)]),
  ];
  return section("licence", "Licence", html`<p>${found.ids.length > 0 ? html`The project’s licence: <b>${found.ids.join(", ")}</b>.` : "No licence was found."}</p>
${rows.length > 0 && table("Licences found", ["Licence", "Name", "Found in"], rows)}`);
}

function debt(found) {
  const kinds = Object.entries(found.kinds).map(([kind, value]) => figure(value, kind));
  const rows = found.files.items.map((row, index) => {
    const sample = found.samples.items[index];
    return [filePath(row.path), count(row.count), sample ? number.format(sample.line) : "", html`<code>${sample ? text(sample.text) : ""}</code>`];
  });
  return section("debt", "Work left in the code", html`<dl class="figures">${kinds}${figure(String(found.per_thousand_lines), "per 1,000 lines")}</dl>
<p class="quiet">${number.format(found.in_prose)} more in documents and data, which do not count.</p>
${rows.length > 0 && table("Files with the most markers", ["File", "#Markers", "#First at line", "There it says"], rows)}
${more(found.files.total, rows.length, "files")}`);
}

function section(id, title, content) {
  return html`<section aria-labelledby="${id}"><h2 id="${id}">${title}</h2>
${content}
</section>`;
}

/** A table; columns whose heads begin with # stand right. */
function table(caption, heads, rows) {
  const cells = heads.map((name) =>
    name.startsWith("#") ? html`<th scope="col" class="number">${name.slice(1)}</th>` : html`<th scope="col">${name}</th>`,
  );
  const lines = rows.map((row) => html`<tr>${row.map((cell, index) => {
    if (index === 0) return html`<th scope="row">${cell}</th>`;
    return heads[index].startsWith("#") ? html`<td class="number">${cell}</td>` : html`<td>${cell}</td>`;
  })}</tr>
`);
  return html`<div class="scroll"><table><caption>${caption}</caption><thead><tr>${cells}</tr></thead><tbody>
${lines}</tbody></table></div>`;
}

/** A number and what it counts; `one` is the word for 1. */
function figure(value, many, one = many) {
  const label = value === 1 ? one : many;
  const words = typeof value === "number" ? number.format(value) : value;
  return html`<div><dt>${label}</dt><dd>${words}</dd></div>`;
}

function note(words) {
  return html`<p class="note">${text(words)}</p>`;
}

function more(total, given, what) {
  return total > given && html`<p class="quiet">… and ${number.format(total - given)} more ${what}.</p>`;
}

/** Foreign text keeps its own direction and cannot turn that of its surroundings. */
function text(words) {
  return html`<bdi>${words}</bdi>`;
}

function filePath(words) {
  return html`<code><bdi>${words}</bdi></code>`;
}

function count(value) {
  return number.format(value);
}

function size(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(1)} ${units[unit]}`;
}

module.exports = { page };
