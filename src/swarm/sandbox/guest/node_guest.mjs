// The guest for Node handlers: Node's own modules only, nothing of Swarm.
//
// It speaks the wire protocol, version 1: 4 bytes of big-endian length, then one JSON-RPC 2.0
// message, over the stream socket named in SWARM_WIRE_FD. Node 20 or newer.

import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { createRequire, register } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { format } from "node:util";

const PROTOCOL = 1;
const CALL_FAILED = -32000;
const TRACE_LIMIT = 32 * 1024;
const REHEARSE_AFTER_MS = 5;
const OWN_FILE = fileURLToPath(import.meta.url);

const wireDescriptor = Number(process.env.SWARM_WIRE_FD);
const entry = JSON.parse(process.env.SWARM_ENTRY)[0];
const packageFolder = process.env.SWARM_PACKAGE;
const outputsFolder = process.env.SWARM_OUTPUTS;
const outputLimit = Number(process.env.SWARM_MAX_OUTPUT_BYTES);

class Failure extends Error {
  constructor(kind, message, trace = null) {
    super(message);
    this.kind = kind;
    this.trace = trace;
  }
}

class Refused extends Error {
  constructor(message) {
    super(message);
    this.name = "Refused";
  }
}

class Outputs {
  constructor(values) {
    this.values = values;
  }
}

// --- the wire ---------------------------------------------------------------------------------

class Wire {
  constructor(descriptor) {
    this.socket = new net.Socket({ fd: descriptor, readable: true, writable: true });
    this.waiting = new Map();
    this.requests = 0;
    this.chunks = Buffer.alloc(0);
    this.onCall = null;
    this.socket.on("data", (data) => this.take(data));
    this.socket.on("error", () => process.exit(0));
    this.socket.on("end", () => process.exit(0));
  }

  take(data) {
    this.chunks = Buffer.concat([this.chunks, data]);
    while (this.chunks.length >= 4) {
      const end = 4 + this.chunks.readUInt32BE(0);
      if (this.chunks.length < end) return;
      const message = JSON.parse(this.chunks.subarray(4, end).toString("utf8"));
      this.chunks = this.chunks.subarray(end);
      if (message.method === "call") this.onCall(message);
      else this.settle(message);
    }
  }

  settle(message) {
    const waiting = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (!waiting) return;
    if (this.waiting.size === 0) this.socket.unref();
    if (message.error) waiting.reject(new Refused(message.error.message));
    else waiting.resolve(message.result);
  }

  sendText(text) {
    return new Promise((resolve) => this.socket.write(frame(text), resolve));
  }

  notify(method, params) {
    const body = encode(params, method);
    return this.sendText(`{"jsonrpc":"2.0","method":"${method}","params":${body}}`);
  }

  request(method, params) {
    const id = ++this.requests;
    this.socket.ref();
    const answered = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.sendText(encode({ jsonrpc: "2.0", id, method, params }, method));
    return answered;
  }
}

function frame(text) {
  const data = Buffer.from(text, "utf8");
  const head = Buffer.alloc(4);
  head.writeUInt32BE(data.length);
  return Buffer.concat([head, data]);
}

// --- values -----------------------------------------------------------------------------------

// Strict JSON of a value; throws a Failure that names the first place that JSON cannot carry.
function encode(value, subject) {
  const fault = findFault(value, subject, new Set());
  if (fault) throw new Failure("bad_output", fault);
  return JSON.stringify(value);
}

function findFault(value, where, above) {
  if (value === null || value === undefined || typeof value === "boolean") return null;
  if (typeof value === "string") {
    if (value.isWellFormed()) return null;
    return `${where} is text with a lone surrogate, which UTF-8 cannot carry`;
  }
  if (typeof value === "number") {
    return Number.isFinite(value) ? null : `${where} is ${value}, which JSON cannot carry`;
  }
  if (typeof value !== "object") return `${where} is a ${typeof value}, which JSON cannot carry`;
  if (typeof value.toJSON === "function") return findFault(value.toJSON(), where, above);
  if (above.has(value) || above.size > 200) return `${where} is nested too deeply, or holds itself`;
  if (value instanceof Map || value instanceof Set || value instanceof Promise) {
    return `${where} is a ${value.constructor.name}, which JSON cannot carry`;
  }
  above.add(value);
  const isList = Array.isArray(value);
  for (const [key, item] of Object.entries(value)) {
    const fault = findFault(item, isList ? `${where}[${key}]` : `${where}.${key}`, above);
    if (fault) return fault;
  }
  above.delete(value);
  return null;
}

function failureOf(error) {
  if (error instanceof Failure) return error;
  if (!(error instanceof Error)) return new Failure("error", `the handler threw ${format(error)}`);
  const message = error.message ? `${error.name}: ${error.message}` : error.name;
  const lines = String(error.stack ?? "").split("\n");
  const kept = lines.filter((line) => !line.includes(OWN_FILE) && !line.includes("node:internal"));
  return new Failure("error", message.toWellFormed(), kept.join("\n").slice(0, TRACE_LIMIT));
}

// --- the context ------------------------------------------------------------------------------

function makeContext(facts, wire) {
  const write = (level) => (message, ...rest) => {
    const text = (rest.length ? format(message, ...rest) : format(message)).toWellFormed();
    wire.notify("log", { level, message: text });
  };
  const log = Object.assign(write("info"), {
    debug: write("debug"),
    info: write("info"),
    warning: write("warning"),
    warn: write("warning"),
    error: write("error"),
  });
  return {
    ...facts,
    log,
    progress(fraction, message = "") {
      const known = fraction === null || fraction === undefined;
      const bounded = known ? null : Math.min(Math.max(Number(fraction), 0), 1);
      wire.notify("progress", { fraction: bounded, message: String(message).toWellFormed() });
    },
    secret: (name) => wire.request("secret", { name }),
    usage: ({ tokens = 0, usd = 0 }) => wire.request("usage", { tokens, usd }),
    emit: (value) => wire.notify("event", { value: value ?? null }),
    outputs: (values) => new Outputs(values),
    files: { folder: outputsFolder, output: fileOutput },
  };
}

// The value that hands out a file or folder written below $SWARM_OUTPUTS.
function fileOutput(name, options) {
  const relative = path.relative(outputsFolder, path.resolve(outputsFolder, name));
  if (relative === ".." || relative.startsWith(`..${path.sep}`)) {
    throw new Error(`${name} is not below $SWARM_OUTPUTS (${outputsFolder})`);
  }
  if (!fs.existsSync(path.join(outputsFolder, relative))) {
    throw new Error(`${name} was not written to $SWARM_OUTPUTS (${outputsFolder})`);
  }
  const given = typeof options === "string" ? options : (options?.mediaType ?? options?.media_type);
  return given ? { $file: relative || ".", media_type: given } : { $file: relative || "." };
}

// --- the network ------------------------------------------------------------------------------

// Newer Node reads the proxy's variables itself (NODE_USE_ENV_PROXY); older Node is taught here.
function useProxy() {
  const proxy = process.env.HTTPS_PROXY;
  if (!proxy || Number(process.versions.node.split(".")[0]) >= 24) return;
  const { hostname, port } = new URL(proxy);
  const tunnel = (target, callback) => openTunnel({ hostname, port: Number(port) }, target, callback);
  const agentOf = (Base, isSecure) =>
    class extends Base {
      createConnection(options, callback) {
        tunnel({ ...options, isSecure, host: options.host ?? options.hostname }, callback);
      }
    };
  const settings = { keepAlive: true, timeout: 300_000 };
  http.globalAgent = new (agentOf(http.Agent, false))(settings);
  https.globalAgent = new (agentOf(https.Agent, true))(settings);
  // Naming one of fetch's classes loads the built-in undici, which then sets its dispatcher. Its
  // class takes a function that connects, so that everything else stays undici's.
  void globalThis.Headers;
  const key = Symbol.for("undici.globalDispatcher.1");
  const Dispatcher = globalThis[key]?.constructor;
  if (!Dispatcher) return;
  globalThis[key] = new Dispatcher({
    connect: (options, callback) => {
      const isSecure = options.protocol === "https:";
      const host = options.hostname.replace(/^\[|\]$/g, "");
      const target = { host, port: options.port || (isSecure ? 443 : 80), isSecure };
      tunnel({ ...target, servername: options.servername || host }, callback);
    },
  });
}

function openTunnel(proxy, target, callback) {
  const host = target.host.includes(":") ? `[${target.host}]` : target.host;
  const authority = `${host}:${target.port}`;
  const socket = net.connect(proxy.port, proxy.hostname);
  let head = Buffer.alloc(0);
  const fail = (error) => {
    socket.destroy();
    callback(error);
  };
  const onEnd = () => fail(new Error(`the proxy closed the connection to ${authority}`));
  const onData = (data) => {
    head = Buffer.concat([head, data]);
    const end = head.indexOf("\r\n\r\n");
    if (end < 0) return;
    socket.off("data", onData).off("end", onEnd).off("error", fail);
    const status = head.subarray(0, end).toString("latin1").split("\r\n")[0];
    if (!/^HTTP\/1\.\d 200/.test(status)) {
      const refusal = new Error(`${authority}: the proxy answered: ${status.slice(9)}`);
      fail(Object.assign(refusal, { code: "ERR_PROXY_REFUSED" }));
      return;
    }
    socket.pause();
    if (head.length > end + 4) socket.unshift(head.subarray(end + 4));
    finishTunnel(socket, target, callback);
  };
  socket.on("data", onData).on("end", onEnd).on("error", fail);
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
}

function finishTunnel(socket, target, callback) {
  if (!target.isSecure) {
    callback(null, socket);
    setImmediate(() => socket.resume()); // Whoever reads it has been attached by now.
    return;
  }
  const servername = target.servername ?? (net.isIP(target.host) ? "" : target.host);
  const options = { ca: target.ca, cert: target.cert, key: target.key };
  for (const name of ["rejectUnauthorized", "checkServerIdentity", "minVersion", "maxVersion"]) {
    if (target[name] !== undefined) options[name] = target[name];
  }
  const secure = tls.connect({
    ...options,
    socket,
    servername: net.isIP(servername) ? "" : servername,
    host: target.host,
    ALPNProtocols: ["http/1.1"],
  });
  const onError = (error) => callback(error);
  secure.once("error", onError);
  secure.once("secureConnect", () => {
    secure.off("error", onError);
    callback(null, secure);
  });
}

// --- the handler ------------------------------------------------------------------------------

// In a sandbox, /node_modules leads to the environment, which Node finds by itself. Elsewhere, what
// is not found beside the package is looked up as if the environment imported it.
function findModulesInEnvironment() {
  const environment = process.env.SWARM_ENVIRONMENT;
  if (!environment || fs.existsSync("/node_modules")) return;
  const parent = JSON.stringify(pathToFileURL(path.join(environment, "package.json")).href);
  const hook = `export async function resolve(specifier, context, next) {
    try { return await next(specifier, context); } catch (error) {
      if (error.code !== "ERR_MODULE_NOT_FOUND" || /^[./]/.test(specifier)) throw error;
      return next(specifier, { ...context, parentURL: ${parent} });
    }
  }`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
}

async function loadHandler() {
  findModulesInEnvironment();
  const [file, name = "handler"] = entry.split(":");
  const full = path.resolve(packageFolder, file);
  let module;
  try {
    module = await import(pathToFileURL(full).href);
  } catch (error) {
    if (error?.code !== "ERR_REQUIRE_ESM" && error?.code !== "ERR_UNKNOWN_FILE_EXTENSION") throw error;
    module = createRequire(full)(full);
  }
  const found = module[name] ?? module.default?.[name] ?? module.default;
  if (typeof found !== "function") {
    throw new Failure("load", `${entry}: it exports no function \`${name}\``);
  }
  return found;
}

async function execute(handler, inputs, context) {
  const produced = await handler(inputs, context);
  const isGenerator = typeof produced?.next === "function";
  if (!isGenerator) return produced instanceof Outputs ? produced.values : produced;
  let outputs;
  for (;;) {
    const { done, value } = await produced.next();
    if (done) return (value instanceof Outputs ? value.values : value) ?? outputs;
    if (value instanceof Outputs) outputs = value.values;
    else await context.emit(value);
  }
}

async function answer(wire, request, loaded) {
  const { id, params } = request;
  try {
    if (params.protocol !== PROTOCOL) {
      throw new Failure("error", `the host speaks protocol ${params.protocol}, not ${PROTOCOL}`);
    }
    for (const [name, value] of Object.entries(params.context)) {
      if (value !== null) process.env[`SWARM_${name.toUpperCase()}`] = String(value);
    }
    const handler = await loaded();
    const context = makeContext(params.context, wire);
    const text = encode((await execute(handler, params.inputs, context)) ?? {}, "outputs");
    const size = Buffer.byteLength(text);
    if (size > outputLimit) {
      const message = `the output has ${size} bytes, the limit is ${outputLimit}`;
      throw new Failure("output_too_large", message);
    }
    await wire.sendText(`{"jsonrpc":"2.0","id":${id},"result":{"outputs":${text}}}`);
  } catch (error) {
    await answerFailure(wire, id, failureOf(error));
  }
  await flush();
}

function answerFailure(wire, id, failure) {
  const data = { kind: failure.kind, traceback: failure.trace };
  const error = { code: CALL_FAILED, message: failure.message, data };
  return wire.sendText(JSON.stringify({ jsonrpc: "2.0", id, error }));
}

function flush() {
  const streams = [process.stdout, process.stderr];
  return Promise.all(streams.map((stream) => new Promise((done) => stream.write("", done))));
}

// Goes through a call that does nothing, so that what the one that counts needs is compiled.
async function rehearse() {
  const sent = [];
  const wire = { chunks: Buffer.alloc(0), onCall: (request) => sent.push(request) };
  const params = { protocol: PROTOCOL, inputs: {}, context: {} };
  const text = JSON.stringify({ jsonrpc: "2.0", id: 0, method: "call", params });
  Wire.prototype.take.call(wire, frame(text));
  wire.sendText = async (answered) => frame(answered);
  await answer(wire, sent[0], async () => async () => ({}));
}

function main() {
  useProxy();
  const wire = new Wire(wireDescriptor);
  // What goes wrong while the package is imported is told in the answer.
  const load = () =>
    loadHandler().then(
      (handler) => () => handler,
      (error) => () => {
        const failure = failureOf(error);
        const message = `the package cannot be loaded: ${failure.message}`;
        throw failure.kind === "load" ? failure : new Failure("load", message, failure.trace);
      },
    );
  const early = process.env.SWARM_LOAD === "at_call" ? null : load();
  let timer;
  early?.then(() => (timer = setTimeout(rehearse, REHEARSE_AFTER_MS)));
  wire.onCall = async (request) => {
    clearTimeout(timer);
    wire.socket.unref();
    const stop = async (error) => {
      await answerFailure(wire, request.id, failureOf(error));
      process.exit(1);
    };
    process.on("uncaughtException", stop);
    process.on("unhandledRejection", stop);
    // Node ends when nothing is left to wait for; a handler that never answers has then failed.
    process.once("beforeExit", () =>
      stop(new Failure("error", "the handler waits for something that can never happen")),
    );
    await answer(wire, request, await (early ?? load()));
    globalThis[Symbol.for("swarm.answered")]?.();
    process.exit(0);
  };
}

// In a virtual machine, this file is loaded before the snapshot and goes on after each restore.
const waitForRestore = globalThis[Symbol.for("swarm.restored")];
if (waitForRestore) {
  await rehearse();
  waitForRestore();
}
main();
