// One stand-in for a NocoBase node: Node's own HTTP server with its defaults (keep-alive of 5 s
// included), the health check and the refusals of NocoBase's gateway, and a journal.
//
//   node origin.js --name node1 --port N --control N --journal FILE [--starting MS] [--work MIN-MAX]
//
// Every API request that carries an id appends `<ms> <method> <id>` to the journal before it works:
// what the journal has was run, what it lacks was not. `GET /running` and `GET /commanding` on the
// control port choose between serving and refusing with APP_COMMANDING, as a node does while a
// plugin is being enabled. For the first `--starting` ms it refuses as a starting node does.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const { randomUUID } = require('node:crypto');
const { clock, options } = require('../rig/rig.js');

const given = options(
  { name: 'node', port: 0, control: 0, journal: '', starting: 0, work: '5-40' },
  'node origin.js --name NAME --port N --control N --journal FILE [--starting MS] [--work MIN-MAX]',
);
const [shortest, longest] = given.work.split('-').map(Number);
const journal = fs.openSync(given.journal, 'a');
const padding = 'x'.repeat(1500);
let refusing = given.starting > 0 ? 'start' : null;
setTimeout(() => { refusing = null; }, given.starting);

/** The gateway's answer while a command runs: singular `error`, `maintaining` true. */
function refuse(response) {
  const body = JSON.stringify({
    error: {
      status: 503, maintaining: true, message: `running ${refusing}`,
      command: { name: refusing }, code: 'APP_COMMANDING',
    },
  });
  response.writeHead(503, {
    'Content-Type': 'application/json', 'X-Request-Id': randomUUID(), 'Content-Length': body.length,
  });
  response.end(body);
}

function health(response) {
  if (refusing) return refuse(response);
  response.writeHead(200, { 'Content-Length': 2 });
  return response.end('ok');
}

/** The same time for the same id on every node, so that no proxy can be lucky. */
function workTime(id) {
  let hash = 0;
  for (const letter of id) hash = (hash * 31 + letter.charCodeAt(0)) % 1_000_003;
  return shortest + hash % (longest - shortest + 1);
}

/** A tenth of the answers come in two parts, so that a node can die between head and end. */
function work(response, id) {
  const text = JSON.stringify({ data: { id, node: given.name, padding } });
  response.setHeader('Content-Type', 'application/json; charset=utf-8');
  response.setHeader('Content-Length', text.length);
  response.setHeader('X-Request-Id', randomUUID());
  const inParts = workTime(`${id}/parts`) % 10 === 0;
  if (inParts) response.write(text.slice(0, 100));
  setTimeout(() => response.end(inParts ? text.slice(100) : text), workTime(id));
}

function serve(request, response) {
  const target = new URL(request.url, 'http://node');
  if (target.pathname === '/api/__health_check') return health(response);
  if (refusing) return refuse(response);
  const id = target.searchParams.get('id') || '';
  request.resume();
  request.on('end', () => {
    fs.writeSync(journal, `${clock().toFixed(1)} ${request.method} ${id}\n`);
    work(response, id);
  });
  return undefined;
}

http.createServer((request, response) => {
  const mode = request.url.slice(1);
  if (mode === 'commanding') refusing = 'pm.enable';
  if (mode === 'running') refusing = null;
  response.end(refusing || 'running');
}).listen(given.control, '127.0.0.1');
http.createServer(serve).listen(given.port, '127.0.0.1');
