// Clients that each keep one connection and send one request at a time on it.
'use strict';

const http = require('node:http');
const { clock } = require('../rig/rig.js');

const BODY = JSON.stringify({ title: 'keep-alive' });

class Client {
  constructor(port, name) {
    Object.assign(this, { port, name, sent: 0, connections: new Set() });
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  }

  /** One request; resolves to `{ id, method, status?, error?, text, start, end }`. */
  send(method) {
    const id = `${method === 'POST' ? 'p' : 'g'}-${this.name}-${this.sent++}`;
    const record = { id, method, start: clock(), text: '' };
    return new Promise((resolve) => {
      const end = (error) => resolve(Object.assign(record, { end: clock() }, error && { error: error.code || error.message }));
      const request = http.request({
        agent: this.agent, host: '127.0.0.1', port: this.port, method, timeout: 20_000,
        path: `/api/posts:${method === 'POST' ? 'create' : 'list'}?id=${id}`,
        headers: method === 'POST' ? { 'Content-Type': 'application/json', 'Content-Length': BODY.length } : {},
      });
      request.on('socket', (socket) => this.connections.add(socket));
      request.on('timeout', () => request.destroy(new Error('no answer in 20 s')));
      request.on('error', end);
      request.on('response', (answer) => {
        record.status = answer.statusCode;
        answer.on('data', (part) => { record.text += part; });
        answer.on('error', end);
        answer.on('end', () => end(record.status === 200 && JSON.parse(record.text).data.id !== id
          ? new Error('answer of another request') : undefined));
      });
      request.end(method === 'POST' ? BODY : undefined);
    });
  }

  close() {
    this.agent.destroy();
  }
}

const failed = (record) => record.error !== undefined || record.status !== 200;

module.exports = { Client, failed };
