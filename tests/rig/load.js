// An open-loop load: requests leave at a fixed rate whether or not earlier ones were answered.
//
//   node load.js --port N --rate N --seconds S --out FILE [--posts SHARE] [--patience MS] [--nocobase FILE]
//
// Every second request or so is a POST; each has an id of its own in its query and in `X-Drill-Id`.
// One JSON line per request goes to FILE: when it left, how it ended, whether and when a head had arrived,
// and whether the answer was the one to this request. SIGTERM ends it early: what has left is waited for.
//
// For a real NocoBase FILE holds `{ headers, collection, mark }`: of a signed-in caller, what to read and write,
// and what the `rid` of each record begins with.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const { clock, options, pause } = require('./rig.js');

const given = options(
  { port: 0, rate: 500, seconds: 60, out: '', posts: 0.5, patience: 30_000, nocobase: '' },
  'node load.js --port N --rate N --seconds S --out FILE [--posts SHARE] [--patience MS] [--nocobase FILE]',
);
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 512 });
const STANDIN = {
  collection: 'posts', headers: { 'Content-Type': 'application/json' },
  body: () => JSON.stringify({ title: 'drill', text: 'y'.repeat(600) }),
  is: ({ id }, { data }) => data.id === id,
};
const nodes = given.nocobase ? nocobase(JSON.parse(fs.readFileSync(given.nocobase, 'utf8'))) : STANDIN;
const out = fs.openSync(given.out, 'w');

/** Real ones answer a list with a list: only a record that was made says for which request. */
function nocobase({ headers, collection, mark }) {
  const rid = ({ id }) => `${mark}-${id}`;
  return {
    collection, headers, body: (record) => JSON.stringify({ rid: rid(record) }),
    is: (record, { data }) => (record.method === 'POST' ? data.rid === rid(record) : Array.isArray(data)),
  };
}

/** Sends one request and resolves to its record, whatever happens to it. */
function one(number) {
  const isPost = Math.floor((number + 1) * given.posts) > Math.floor(number * given.posts);
  const record = { id: `${isPost ? 'p' : 'g'}${number}`, method: isPost ? 'POST' : 'GET', start: clock() };
  const body = isPost ? nodes.body(record) : undefined;
  return new Promise((resolve) => {
    const end = (result) => { if (record.end === undefined) resolve(Object.assign(record, result, { end: clock() })); };
    const request = http.request({
      agent, host: '127.0.0.1', port: given.port, method: record.method,
      path: `/api/${nodes.collection}:${isPost ? 'create' : 'list'}?id=${record.id}`,
      headers: { 'X-Drill-Id': record.id, ...nodes.headers, ...(isPost ? { 'Content-Length': body.length } : {}) },
    });
    const late = setTimeout(() => request.destroy(new Error('patience')), given.patience);
    const fail = (error) => { clearTimeout(late); end({ error: error.code || error.message, reused: request.reusedSocket }); };
    request.on('error', fail);
    request.on('response', (answer) => {
      record.status = answer.statusCode;
      record.head = clock();
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', fail);
      answer.on('end', () => { clearTimeout(late); end(judge(record, Buffer.concat(parts).toString())); });
    });
    request.end(body);
  });
}

/** A 200 must be the answer to this request, whole. */
function judge(record, text) {
  if (record.status !== 200) return { text: text.slice(0, 200) };
  try {
    const answer = JSON.parse(text);
    return nodes.is(record, answer) ? {} : { error: 'answer of another request', other: answer.data.id };
  } catch {
    return { error: 'answer is not whole' };
  }
}

let over = false;
process.once('SIGTERM', () => { over = true; });

async function main() {
  const total = Math.round(given.rate * given.seconds);
  const begin = clock();
  const open = new Set();
  let latest = 0;
  let number = 0;
  console.log(`begin ${begin}`);
  while (number < total && !over) {
    const due = Math.min(total, Math.floor((clock() - begin) * given.rate / 1000) + 1);
    latest = Math.max(latest, clock() - begin - number * 1000 / given.rate);
    for (; number < due; number++) {
      const promise = one(number).then((record) => {
        open.delete(promise);
        fs.writeSync(out, `${JSON.stringify(record)}\n`);
      });
      open.add(promise);
    }
    await pause(1);
  }
  await Promise.all(open);
  console.log(`sent ${number}`);
  console.log(`latest ${latest.toFixed(1)}`);
  agent.destroy();
}

main();
