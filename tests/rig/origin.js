// One stand-in for a NocoBase node: Node's own HTTP server with its defaults (keep-alive of 5 s
// included), the health check and the refusals of NocoBase's gateway, its `/ws`, and a journal.
//
//   node origin.js --name node1 --port N --control N --journal FILE [--starting MS] [--work MIN-MAX]
//
// Every API request that carries an id appends `<ms> <method> <id>` to the journal before it works:
// what the journal has was run, what it lacks was not. `GET /running` and `GET /commanding` on the
// control port choose between serving and refusing with APP_COMMANDING, as a node does while a
// plugin is being enabled. For the first `--starting` ms it refuses as a starting node does.
//
// `/ws` takes anybody in any state, tells of a change of state in `maintaining` frames, and answers
// `auth:token` with `authorized`. SIGTERM ends it in NocoBase's order: a frame that says so, then
// refusals, then no more connections; tunnels are not closed, and keep the process alive.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const { randomUUID } = require('node:crypto');
const { clock, options, pause } = require('./rig.js');
const websocket = require('./websocket.js');

const given = options(
  { name: 'node', port: 0, control: 0, journal: '', starting: 0, work: '5-40' },
  'node origin.js --name NAME --port N --control N --journal FILE [--starting MS] [--work MIN-MAX]',
);
const [shortest, longest] = given.work.split('-').map(Number);
const journal = fs.openSync(given.journal, 'a');
const padding = 'x'.repeat(1500);
const tunnels = new Set();
const commanding = (name) => ({ status: 503, code: 'APP_COMMANDING', message: `running ${name}`, command: { name } });
const STOPPED = { status: 503, code: 'APP_STOPPED', message: 'app main has stopped' };
const GONE = { status: 404, code: 'APP_NOT_FOUND', message: 'app main not found' };
const STEP = 200; // ms between the steps of a graceful end: a stand-in has no database to close

/** What everybody is refused with, or null while the node serves. */
let refusing = given.starting > 0 ? commanding('start') : null;

function become(refusal) {
  refusing = refusal;
  tell(refusal ? { code: refusal.code, message: refusal.message } : { code: 'APP_RUNNING', message: 'application is running' });
}

const tell = (payload) => tunnels.forEach((socket) => socket.write(websocket.text({ type: 'maintaining', payload })));

/** The gateway's answer: singular `error`, `maintaining` true. */
function refuse(response) {
  const { status, ...error } = refusing;
  const body = JSON.stringify({ error: { status, maintaining: true, ...error } });
  response.writeHead(status, {
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

/** One client's tunnel, to its end. */
function upgrade(request, socket) {
  socket.on('error', () => socket.destroy());
  if (new URL(request.url, 'http://node').pathname !== '/ws') return socket.destroy();
  const reader = new websocket.Reader();
  tunnels.add(socket);
  socket.on('close', () => tunnels.delete(socket));
  socket.on('end', () => socket.end());
  socket.on('data', (chunk) => reader.push(chunk).forEach((frame) => hear(socket, frame)));
  return socket.write(websocket.opened(request.headers['sec-websocket-key']));
}

function hear(socket, frame) {
  if (frame.opcode === websocket.CLOSE) socket.end(websocket.close(websocket.closeCode(frame)));
  const said = Buffer.from(frame.payload).toString();
  if (said.includes('"auth:token"')) socket.write(websocket.text({ type: 'authorized' }));
}

/** Nothing that still runs is cut: the process ends with its last connection. */
async function end() {
  tell({ code: 'APP_RUNNING', message: 'destroying app...' });
  await pause(STEP);
  become(STOPPED);
  await pause(STEP);
  become(GONE);
  server.close();
  control.close();
  control.closeAllConnections();
}

const control = http.createServer((request, response) => {
  const mode = request.url.slice(1);
  if (mode === 'commanding') become(commanding('pm.enable'));
  if (mode === 'running') become(null);
  response.end(refusing ? refusing.code : 'running');
});
const server = http.createServer(serve);
server.on('upgrade', upgrade);
process.once('SIGTERM', end);
if (refusing) setTimeout(() => become(null), given.starting);
control.listen(given.control, '127.0.0.1');
server.listen(given.port, '127.0.0.1');
