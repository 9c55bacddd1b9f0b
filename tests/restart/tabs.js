// Many open pages of NocoBase, as far as their WebSocket goes: each holds a tunnel to `/ws`, says
// `auth:token` when it opens, comes back a second after its tunnel ended, and gives up after thirty
// attempts in a row that did not open one.
//
//   node tabs.js --port N --control N --tunnels N --out FILE [--pace N] [--token TEXT]
//
// One JSON line per event goes to FILE: `{ tab, at, what }`, where `what` is `try`, `open`,
// `refused` (with `status`), `closed` (with the `code` of a Close frame, or 0 where the connection
// was cut without one), `maintaining` (with `code`), `gaveup`, and at the end `alive` for each tab
// whose token is answered. The first opening is paced, `--pace` a second.
//
// On the control port `GET /open` says how many are open; `GET /finish` asks all of them for a sign
// of life, writes what came and ends the process.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const websocket = require('../rig/websocket.js');
const { clock, options, pause, until } = require('../rig/rig.js');

const given = options(
  { port: 0, control: 0, tunnels: 100, out: '', pace: 200, token: '' },
  'node tabs.js --port N --control N --tunnels N --out FILE [--pace N] [--token TEXT]',
);
const RETURN = 1000; // ms: NocoBase's reconnectInterval
const ATTEMPTS = 30; // NocoBase's maxReconnectAttempts, per outage
const LIFE = 10_000; // ms to wait for signs of life
const out = fs.openSync(given.out, 'w');
const note = (tab, what, more) => fs.writeSync(out, `${JSON.stringify({ tab, at: clock(), what, ...more })}\n`);

class Tab {
  constructor(number) {
    Object.assign(this, { number, attempts: 0, open: false });
  }

  connect() {
    this.attempts += 1;
    note(this.number, 'try');
    const socket = net.connect(given.port, '127.0.0.1');
    const state = { head: '', reader: new websocket.Reader(), code: 0 };
    this.socket = socket;
    socket.setNoDelay(true);
    socket.write(websocket.opening('/ws', `127.0.0.1:${given.port}`));
    socket.on('data', (chunk) => (this.open ? this.hear(state, chunk) : this.answered(state, chunk)));
    socket.on('error', () => {});
    socket.on('close', () => this.closed(state));
  }

  /** Whatever follows the head of a 101 is the first frames. */
  answered(state, chunk) {
    state.head += chunk.toString('latin1');
    const end = state.head.indexOf('\r\n\r\n');
    if (end < 0) return;
    if (!state.head.startsWith('HTTP/1.1 101 ')) { this.socket.destroy(); return; }
    note(this.number, 'open');
    Object.assign(this, { open: true, attempts: 0 });
    this.sign();
    this.hear(state, Buffer.from(state.head.slice(end + 4), 'latin1'));
  }

  sign() {
    const token = { type: 'auth:token', payload: { token: given.token || `tab${this.number}`, authenticator: 'basic' } };
    this.socket.write(websocket.text(token, { masked: true }));
  }

  hear(state, chunk) {
    for (const frame of state.reader.push(chunk)) {
      if (frame.opcode === websocket.CLOSE) {
        state.code = websocket.closeCode(frame);
        this.socket.end(websocket.close(state.code, { masked: true }));
      } else if (frame.opcode === websocket.TEXT) {
        this.said(JSON.parse(Buffer.from(frame.payload).toString()));
      }
    }
  }

  said({ type, payload }) {
    if (type === 'maintaining') note(this.number, 'maintaining', { code: payload.code });
    if (type === 'authorized' && this.asked) {
      note(this.number, 'alive');
      this.asked = false;
    }
  }

  closed(state) {
    if (this.open) note(this.number, 'closed', { code: state.code });
    else note(this.number, 'refused', { status: Number(state.head.slice(9, 12)) || 0 });
    this.open = false;
    if (this.attempts >= ATTEMPTS) note(this.number, 'gaveup');
    else setTimeout(() => this.connect(), RETURN);
  }

  /** Asks whether somebody is at the other end. */
  ask() {
    this.asked = true;
    if (this.open) this.sign();
  }
}

async function main() {
  const tabs = Array.from({ length: given.tunnels }, (_, number) => new Tab(number));
  const open = () => tabs.filter((tab) => tab.open).length;
  http.createServer(async (request, response) => {
    if (request.url !== '/finish') { response.end(String(open())); return; }
    tabs.forEach((tab) => tab.ask());
    await until('signs of life', LIFE, () => tabs.every((tab) => !tab.open || !tab.asked)).catch(() => {});
    response.end(String(open()), () => process.exit(0));
  }).listen(given.control, '127.0.0.1');
  const begin = clock();
  for (let next = 0; next < tabs.length;) {
    const due = Math.min(tabs.length, Math.floor((clock() - begin) * given.pace / 1000) + 1);
    while (next < due) tabs[next++].connect();
    await pause(5);
  }
}

main();
