// Attacks in Node's own words, and all the others by a program that Node starts.
import { execFileSync } from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";

const connected = (options) =>
  new Promise((resolve, reject) => {
    const client = net.connect(options);
    client.on("data", (data) => resolve(data.toString()));
    client.on("error", reject);
  });

const ATTACKS = {
  "read-secret": (t) => fs.readFileSync(t.secret, "utf8"),
  "read-by-link": (t) => {
    fs.symlinkSync(t.secret, "/tmp/native-link");
    return fs.readFileSync("/tmp/native-link", "utf8");
  },
  "read-by-root": (t) => fs.readFileSync(`/proc/1/root${t.secret}`, "utf8"),
  "write-package": () => fs.writeFileSync("/package/attacked.mjs", "1") ?? "wrote",
  "write-guest": () => fs.openSync("/guest/node_guest.mjs", "r+"),
  "write-interpreter": () => fs.openSync(process.execPath, "r+"),
  "signal-host": (t) => process.kill(t.pids[0], 0) && "could signal",
  "raise-priority": () => os.setPriority(-5) ?? "raised its priority",
  "become-root": () => process.setuid(0) ?? "is root",
  "connect-loopback": (t) => connected({ host: "127.0.0.1", port: t.tcp }),
  "connect-metadata": () => connected({ host: "169.254.169.254", port: 80 }),
  "connect-by-path": (t) => connected({ path: t.socket }),
  "send-datagram": () =>
    new Promise((resolve, reject) => {
      const client = dgram.createSocket("udp4");
      client.on("error", reject);
      client.send("x", 53, "9.9.9.9", (error) => (error ? reject(error) : resolve("sent")));
    }),
  "look-up": async () => (await import("node:dns/promises")).resolve4("secret.example"),
  fetch: async () => (await fetch("http://169.254.169.254/")).text(),
};

export async function handler({ many, targets, python }) {
  const verdicts = {};
  for (const [name, attack] of Object.entries(ATTACKS)) {
    try {
      verdicts[name] = { gained: String(await attack(targets)), refusal: null };
    } catch (error) {
      verdicts[name] = { gained: null, refusal: String(error.code ?? error) };
    }
  }
  const input = JSON.stringify({ many, targets });
  const options = { input, maxBuffer: 1 << 24 };
  const { verdicts: others } = JSON.parse(execFileSync(python, ["batch.py"], options));
  return { verdicts: others, native: verdicts };
}
