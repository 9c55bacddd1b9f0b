// An upload that takes longer than a node waits for one: 100 KB/s, against Node.js's own HTTP server, which
// answers 408 when a whole request is not there within `requestTimeout` (300 s). Once with the upload
// shield and once without it, at the same time.
//
// As a scenario of the restarts it takes seconds, with all times shortened. By itself:
//   node tests/restart/upload.js           the same
//   node tests/restart/upload.js --long    30 minutes, with the defaults of Node.js and of cobalance
'use strict';

const { createHash } = require('node:crypto');
const http = require('node:http');
const path = require('node:path');
const {
  Family, call, clock, freePorts, options, pause, run, statusOf, table, until, workDirectory,
} = require('../rig/rig.js');
const { startProxy } = require('../rig/proxies.js');
const { told, zero } = require('./verdict.js');

const RATE = 100_000; // bytes a second
const EVERY = 100; // ms between two pieces

// A node waits three times as long as it takes to notice; cobalance spools what would take a fifth of that.
const SHORT = { seconds: 6, timeout: 2000, check: 200, within: 'stream_within = "400ms"' };
const LONG = { seconds: 1800, timeout: 300_000, check: 30_000, within: '' };
const OFF = 'stream_within = "0s"';

/** A node: it takes every body, and tells how long it waited for each. */
function serve({ port, timeout, check }) {
  const uploads = [];
  const limits = { requestTimeout: timeout, headersTimeout: Math.min(timeout, 60_000), connectionsCheckingInterval: check };
  http.createServer(limits, (request, answer) => {
    const begun = clock();
    const hash = createHash('sha1');
    let bytes = 0;
    request.on('data', (data) => { bytes += data.length; hash.update(data); });
    request.on('error', () => {});
    request.on('end', () => {
      if (request.url.endsWith('/__health_check')) return answer.end('ok');
      if (request.url === '/uploads') return answer.end(JSON.stringify(uploads));
      if (request.method === 'POST') uploads.push({ bytes, waited: clock() - begun });
      return answer.end(hash.digest('hex'));
    });
  }).listen(port, '127.0.0.1');
}

async function startNode(family, name, times) {
  const [port] = await freePorts(1);
  const given = { port, timeout: times.timeout, check: times.check };
  family.start(name, process.execPath, [__filename, '--serve', JSON.stringify(given)]);
  await until(`${name} to serve`, 10_000, () => statusOf(`http://127.0.0.1:${port}/api/__health_check`).then((status) => status === 200));
  return { name, port };
}

/** Sends so many bytes at the rate; `{ status, whole, took }`, with status 0 where no answer came. */
async function upload(port, seconds) {
  const piece = Buffer.alloc(RATE * EVERY / 1000, 'x');
  const count = seconds * 1000 / EVERY;
  const hash = createHash('sha1');
  const begun = clock();
  const request = http.request({
    port, host: '127.0.0.1', method: 'POST', path: '/api/attachments:create', agent: false,
    headers: { 'Content-Length': piece.length * count },
  });
  const answered = new Promise((resolve) => {
    request.on('error', () => resolve({ status: 0, text: '' }));
    request.on('response', (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', () => resolve({ status: 0, text: '' }));
      answer.on('end', () => resolve({ status: answer.statusCode, text: Buffer.concat(parts).toString() }));
    });
  });
  let over = false;
  answered.then(() => { over = true; });
  for (let n = 0; n < count && !over; n++) {
    hash.update(piece);
    request.write(piece);
    // Against the schedule, so that a late timer makes no slower upload.
    await pause(Math.max(0, begun + (n + 1) * EVERY - clock()));
  }
  request.end();
  const { status, text } = await answered;
  request.destroy();
  return { status, whole: status === 200 && text === hash.digest('hex'), took: clock() - begun };
}

/** One upload through a cobalance of its own, to a node of its own. */
async function through(family, name, times, upstream) {
  const node = await startNode(family, `${name}-node`, times);
  const proxy = await startProxy('cobalance', family, [node], { name, more: { upstream } });
  const sent = await upload(proxy.port, times.seconds);
  const there = JSON.parse((await call(`http://127.0.0.1:${node.port}/uploads`)).body);
  return { ...sent, there };
}

async function both(family, times) {
  const [shielded, bare] = await Promise.all([
    through(family, 'shielded', times, times.within), through(family, 'bare', times, OFF),
  ]);
  return { shielded, bare };
}

const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;

const uploadRows = ({ shielded, bare }) => [
  zero('slow uploads that failed with the shield', shielded.whole ? 0 : 1),
  zero('of them at the node more than once', Math.max(0, shielded.there.length - 1)),
  told('it took its client', `${seconds(shielded.took)}, and ${RATE / 1000} KB/s`),
  told('the node waited for its body', shielded.there.map(({ waited }) => `${Math.round(waited)} ms`).join(', ')),
  zero('slow uploads that succeeded without the shield', bare.whole ? 1 : 0),
  told('without it', `${bare.status || 'no answer'} after ${seconds(bare.took)}`),
];

/** As one of the scenarios: the load goes on beside it. */
const scenario = {
  title: 'an upload that is slower than a node waits, with the upload shield and without',
  long: SHORT,
  short: SHORT,
  proxies: ['cobalance'],
  async disturb({ family, times, marks }) {
    marks.uploads = await both(family, times);
  },
  rows: ({ marks }) => uploadRows(marks.uploads),
};

async function main() {
  const usage = 'node tests/restart/upload.js [--long]\n  --long  30 minutes, with the defaults of both sides';
  const given = options({ long: false, serve: '' }, usage);
  if (given.serve) {
    serve(JSON.parse(given.serve));
    return new Promise(() => {});
  }
  const directory = workDirectory('upload');
  console.log(`evidence in ${directory}`);
  const family = new Family(directory);
  const rows = uploadRows(await both(family, given.long ? LONG : SHORT));
  await family.clear();
  const verdict = ({ must, holds }) => (must === '' ? '' : holds ? 'yes' : 'NO');
  console.log(table([['cobalance', 'seen', 'must be', 'holds'], ...rows.map((row) => [row.what, row.seen, row.must, verdict(row)])]));
  return rows.every(({ holds }) => holds !== false) ? 0 : 1;
}

if (require.main === module) run(main);

module.exports = scenario;
