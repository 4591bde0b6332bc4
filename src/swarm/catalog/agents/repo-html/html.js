"use strict";

/**
 * HTML in which nothing foreign can be markup: `html` is a template tag that escapes every value,
 * unless it was made by `html` itself.
 */

class Markup {
  constructor(text) {
    this.text = text;
  }
}

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Controls, bidirectional overrides and other invisible characters, lone surrogates. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

function escape(value) {
  return String(value)
    .replace(INVISIBLE, "\uFFFD")
    .replace(/[&<>"']/g, (character) => ENTITIES[character]);
}

function render(value) {
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return value.map(render).join("");
  if (value === null || value === undefined || value === false) return "";
  return escape(value);
}

/** Tag of template strings: values are escaped, markup and lists of markup are kept. */
function html(strings, ...values) {
  const parts = strings.map((text, index) =>
    index < values.length ? text + render(values[index]) : text,
  );
  return new Markup(parts.join(""));
}

/** Text of this package that is markup already. */
function verbatim(text) {
  return new Markup(text);
}

module.exports = { html, verbatim };
