"use strict";

/** Small charts as inline SVG. Each carries its figures as text for those who do not see it. */

const { html } = require("./html.js");

const COLOURS = 8;
const number = new Intl.NumberFormat("en-US");

/** A ring that fills with the score; the number itself stands in its middle as text. */
function scoreRing(score, grade) {
  const length = 2 * Math.PI * 52;
  const filled = (length * score) / 100;
  return html`<svg class="ring" viewBox="0 0 120 120" role="img" aria-label="Score ${score} of 100, grade ${grade}">
<circle class="track" cx="60" cy="60" r="52"/>
<circle class="value grade-${grade}" cx="60" cy="60" r="52" stroke-dasharray="${filled.toFixed(1)} ${length.toFixed(1)}" transform="rotate(-90 60 60)"/>
<text class="score" x="60" y="66" text-anchor="middle">${score}</text>
<text class="of" x="60" y="86" text-anchor="middle">of 100</text>
</svg>`;
}

/**
 * One bar divided by the lines of code and markup, with a legend; small ones are put together.
 * Data and prose would often hide them, so those only show where there is nothing else.
 */
function languageBar(all) {
  const code = all.filter((row) => row.type === "programming" || row.type === "markup");
  const languages = sum(code, "lines") > 0 ? code : all;
  const shown = languages.filter((row) => row.lines > 0).slice(0, COLOURS - 1);
  const rest = languages.reduce((sum, row) => sum + row.lines, 0) - sum(shown, "lines");
  const parts = shown.map((row) => ({ name: row.name, lines: row.lines }));
  if (rest > 0) parts.push({ name: "All others", lines: rest });
  const total = sum(parts, "lines");
  if (total === 0) return html``;
  let at = 0;
  const bars = parts.map((part, index) => {
    const width = (1000 * part.lines) / total;
    const bar = html`<rect class="c${index}" x="${at.toFixed(2)}" y="0" width="${Math.max(width - 2, 0.5).toFixed(2)}" height="28"><title>${part.name}: ${number.format(part.lines)} lines</title></rect>`;
    at += width;
    return bar;
  });
  const legend = parts.map(
    (part, index) =>
      html`<li><span class="swatch c${index}"></span>${part.name} <b>${percent(part.lines / total)}</b></li>`,
  );
  return html`<svg class="bar" viewBox="0 0 1000 28" preserveAspectRatio="none" role="img" aria-label="Lines by language; the table below has the figures">${bars}</svg>
<ul class="legend">${legend}</ul>
<p class="quiet">${languages === code ? "Lines of code and markup" : "Lines of text"}: ${number.format(total)}</p>`;
}

/** Columns of commits, one for each month. */
function monthColumns(months) {
  const most = Math.max(1, ...months.map((row) => row.commits));
  const step = 700 / months.length;
  const columns = months.map((row, index) => {
    const height = row.commits === 0 ? 0 : Math.max(2, (120 * row.commits) / most);
    const x = 36 + index * step;
    const isLabelled = index % 3 === (months.length - 1) % 3;
    const value = number.format(row.commits);
    return html`<g><title>${row.month}: ${value} commits</title>
<rect class="month" x="${(x + 2).toFixed(1)}" y="${(136 - height).toFixed(1)}" width="${(step - 4).toFixed(1)}" height="${height.toFixed(1)}" rx="2"/>
<rect class="hover" x="${x.toFixed(1)}" y="16" width="${step.toFixed(1)}" height="120"/>
${isLabelled && html`<text class="tick" x="${(x + step / 2).toFixed(1)}" y="154" text-anchor="middle">${row.month}</text>`}</g>`;
  });
  const highest = months.reduce((best, row) => (row.commits > best.commits ? row : best));
  return html`<svg class="months" viewBox="0 0 760 162" role="img" aria-label="Commits in each of the last ${months.length} months, most in ${highest.month}: ${number.format(highest.commits)}">
<line class="axis" x1="34" y1="136.5" x2="738" y2="136.5"/><line class="grid" x1="34" y1="16.5" x2="738" y2="16.5"/>
<text class="tick" x="28" y="20" text-anchor="end">${number.format(most)}</text><text class="tick" x="28" y="140" text-anchor="end">0</text>
${columns}</svg>`;
}

function sum(rows, key) {
  return rows.reduce((total, row) => total + row[key], 0);
}

function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.1 ? "<0.1%" : `${value.toFixed(1)}%`;
}

module.exports = { languageBar, monthColumns, number, percent, scoreRing };
