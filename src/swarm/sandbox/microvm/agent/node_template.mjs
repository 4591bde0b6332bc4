// A Node process that waits in a snapshot: it learns its environment after the restore, makes its
// random numbers its own, and goes on as the guest for Node handlers.

import crypto from "node:crypto";
import fs from "node:fs";
import "node:http";
import "node:https";
import "node:module";
import "node:net";
import "node:path";
import "node:tls";
import "node:url";
import "node:util";

const START_DESCRIPTOR = 4;
const GUEST = "/swarm/guest/node_guest.mjs";
const NUMBERS = 512;

// Node 18 has no well-formedness checks of text (they came with V8 11).
function teachWellFormed() {
  const lone = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;
  const methods = {
    isWellFormed() {
      return String(this).search(lone) < 0;
    },
    toWellFormed() {
      return String(this).replace(lone, "\uFFFD");
    },
  };
  for (const [name, value] of Object.entries(methods)) {
    if (String.prototype[name]) continue;
    Object.defineProperty(String.prototype, name, { value, writable: true, configurable: true });
  }
}

// V8 seeded Math.random before the snapshot, alike for every restore. Cryptographic random numbers
// come from OpenSSL, which renews its state when the clock has moved on by more than an hour.
function renewRandom() {
  const words = new Uint32Array(2 * NUMBERS);
  let next = words.length;
  Math.random = function random() {
    if (next >= words.length) {
      crypto.randomFillSync(words);
      next = 0;
    }
    const high = words[next++] >>> 5;
    const low = words[next++] >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  };
}

function read(size) {
  const buffer = Buffer.alloc(size);
  for (let have = 0; have < size; ) {
    const more = fs.readSync(START_DESCRIPTOR, buffer, have, size - have);
    if (more === 0) process.exit(0);
    have += more;
  }
  return buffer;
}

// Called by the guest when it is loaded: here the snapshot is taken.
function waitForRestore() {
  fs.writeSync(START_DESCRIPTOR, "r");
  const { environment } = JSON.parse(read(read(4).readUInt32BE()).toString());
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, environment);
  renewRandom();
}

// Called by the guest when its call is answered. Cheaper than an exit.
function rest() {
  fs.writeSync(START_DESCRIPTOR, "d");
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

teachWellFormed();
globalThis[Symbol.for("swarm.answered")] = rest;
globalThis[Symbol.for("swarm.restored")] = waitForRestore;
await import(GUEST);
