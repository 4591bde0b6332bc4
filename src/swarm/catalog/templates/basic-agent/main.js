"use strict";

/**
 * Called once per invocation, in a fresh sandbox.
 *
 * `inputs` holds what agent.yaml declares under `inputs`, already checked. Return an object with
 * what it declares under `outputs`. Throw an Error to fail; its message is what people will see.
 * What you print is kept as log lines of the invocation.
 */
async function handler(inputs, context) {
  const text = inputs.input_data;
  const words = text.split(/\s+/u).filter(Boolean);
  return {
    result: {
      characters: Array.from(text).length,
      words: words.length,
      shouted: text.toUpperCase(),
    },
  };
}

module.exports = { handler };
