// What the drills share: free ports, children that never outlive us, conditions to wait for, and
// small HTTP calls. Node.js standard library only; loopback only.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const REPOSITORY = path.resolve(__dirname, '..', '..');

/** Wall clock in milliseconds with a fraction: comparable between the processes of one machine. */
const clock = () => performance.timeOrigin + performance.now();

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks `condition` until it gives something true, which is returned; throws after `limit` ms. */
async function until(what, limit, condition) {
  const end = clock() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (clock() > end) throw new Error(`waited ${limit} ms in vain for ${what}`);
    await pause(20);
  }
}

/** The ports from which the system takes those of connections begin here (ip_sysctl(7)). */
function firstEphemeral() {
  try {
    return Number(fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').trim().split(/\s+/)[0]);
  } catch {
    return 32_768;
  }
}

/** A server on a loopback port that no connection is given by chance; any port where there are none. */
async function hold() {
  const [low, high] = [10_000, firstEphemeral()];
  for (;;) {
    const port = high - low < 1000 ? 0 : low + Math.floor(Math.random() * (high - low));
    const server = net.createServer();
    const taken = await new Promise((resolve, reject) => {
      server.once('error', (error) => (error.code === 'EADDRINUSE' ? resolve(true) : reject(error)));
      server.listen(port, '127.0.0.1', () => resolve(false));
    });
    if (!taken) return server;
  }
}

/**
 * `count` loopback ports that were free a moment ago: all are held at once, so none repeats. They stay free for a
 * node that ends and starts again, whatever connections the load opens meanwhile.
 */
async function freePorts(count) {
  const holders = await Promise.all(Array.from({ length: count }, hold));
  const ports = holders.map((server) => server.address().port);
  await Promise.all(holders.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/**
 * One HTTP exchange on a connection of its own. `body` may be text; the answer is
 * `{ status, headers, body }`. Rejects on a connection error or after `timeout` ms.
 */
function call(url, { method = 'GET', headers = {}, body, timeout = 5000 } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers, agent: false, timeout }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', reject);
      answer.on('end', () => resolve({
        status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts).toString(),
      }));
    });
    request.on('timeout', () => request.destroy(new Error(`no answer in ${timeout} ms from ${url}`)));
    request.on('error', reject);
    request.end(body);
  });
}

/** The status of a GET, or 0 where nobody answers: for conditions that wait for a service. */
const statusOf = (url) => call(url, { timeout: 2000 }).then((a) => a.status, () => 0);

/**
 * The processes of one run, with their logs in `directory`. They are ended by their own process ids
 * and in any case when this process ends.
 */
class Family {
  constructor(directory) {
    this.directory = directory;
    this.members = new Set();
    process.once('exit', () => this.endAll());
    for (const [signal, code] of [['SIGINT', 130], ['SIGTERM', 143], ['SIGHUP', 129]]) {
      process.once(signal, () => process.exit(code));
    }
  }

  /**
   * Starts a process whose output goes to `<directory>/<name>.log`. `last` is the signal that ends
   * it for good: nginx needs SIGTERM, because its workers would outlive a killed master.
   */
  start(name, command, args, { last = 'SIGKILL', ...options } = {}) {
    const log = fs.openSync(path.join(this.directory, `${name}.log`), 'a');
    const child = spawn(command, args, { stdio: ['ignore', log, log], ...options });
    fs.closeSync(log);
    const member = { name, child, last, pid: child.pid, running: true };
    member.ended = new Promise((resolve) => {
      const end = (code, signal) => { member.running = false; resolve({ code, signal }); };
      child.once('error', (error) => { member.error = error; end(null, null); });
      child.once('exit', end);
    });
    this.members.add(member);
    return member;
  }

  /** Sends a signal and waits for the end of the process; its `{ code, signal }`, or null in time. */
  async stop(member, signal = 'SIGTERM', limit = 30_000) {
    if (member.running) member.child.kill(signal);
    const late = pause(limit).then(() => null);
    const result = await Promise.race([member.ended, late]);
    if (result) this.members.delete(member);
    return result;
  }

  /** Ends all that are left, and waits for it: for the next part of a run. */
  async clear() {
    await Promise.all([...this.members].map((member) => this.stop(member, member.last)));
  }

  endAll() {
    for (const member of this.members) {
      if (member.running) member.child.kill(member.last);
    }
  }
}

/** A directory for one run. `TMPDIR` decides where; it is kept, because it holds the evidence. */
const workDirectory = (name) => fs.mkdtempSync(path.join(os.tmpdir(), `cobalance-${name}-`));

/** Writes beside, then renames: a reader sees the old or the new text, never half of one. */
function replaceFile(file, text) {
  fs.writeFileSync(`${file}.new`, text);
  fs.renameSync(`${file}.new`, file);
}

/** The lines of a file of JSON lines; a last line without its end is left out. */
function jsonLines(file) {
  const text = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n').filter(Boolean);
  return lines.flatMap((line) => { try { return [JSON.parse(line)]; } catch { return []; } });
}

/**
 * `--name value` pairs over `defaults`, whose types decide how a value is read; what is false by
 * default is a flag and takes none. An unknown name prints `usage` and ends the process with 2.
 */
function options(defaults, usage, argv = process.argv.slice(2)) {
  const chosen = { ...defaults };
  const refuse = (why) => { console.error(`${why}\n${usage}`); process.exit(2); };
  for (let i = 0; i < argv.length; i++) {
    if (argv[i] === '--help' || argv[i] === '-h') { console.log(usage); process.exit(0); }
    const name = argv[i].replace(/^--/, '');
    if (!(name in defaults) || !argv[i].startsWith('--')) refuse(`unknown argument ${argv[i]}`);
    if (defaults[name] === false) { chosen[name] = true; continue; }
    const value = argv[++i];
    if (value === undefined) refuse(`--${name} needs a value`);
    if (typeof defaults[name] === 'number' && !Number.isFinite(Number(value))) refuse(`--${name} needs a number`);
    chosen[name] = typeof defaults[name] === 'number' ? Number(value) : value;
  }
  return chosen;
}

/** A table for a terminal and for Markdown alike: `rows` are arrays, the first is the head. */
function table(rows) {
  const text = rows.map((row) => row.map(String));
  const widths = text[0].map((_, column) => Math.max(...text.map((row) => row[column].length)));
  const pad = (cell, column) => (column ? cell.padStart(widths[column]) : cell.padEnd(widths[column]));
  const line = (row) => `| ${row.map(pad).join(' | ')} |`;
  const rule = `|${widths.map((width, i) => (i ? `${'-'.repeat(width + 1)}:` : '-'.repeat(width + 2))).join('|')}|`;
  return [line(text[0]), rule, ...text.slice(1).map(line)].join('\n');
}

/** Runs `main`, prints what went wrong in one line, and ends with its result as the exit code. */
function run(main) {
  main().then((code) => process.exit(code), (error) => {
    console.error(`could not run: ${error.stack || error}`);
    process.exit(3);
  });
}

module.exports = {
  Family, REPOSITORY, call, clock, freePorts, jsonLines, options, pause, replaceFile, run, statusOf,
  table, until, workDirectory,
};
