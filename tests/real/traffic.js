// A bounded load on NocoBase's API: reads, and records whose ids are counted later.
'use strict';

const http = require('node:http');
const { clock, pause } = require('../rig/rig.js');
const { COLLECTION } = require('./cluster.js');

const PATIENCE = 30_000;

/** Of ten requests: four small reads, two lists, four new records. */
const KINDS = ['info', 'create', 'list', 'info', 'create', 'info', 'create', 'list', 'info', 'create'];

class Traffic {
  /** `headers` are those of a signed-in caller; `mark` begins every id of this run. */
  constructor(port, headers, mark) {
    Object.assign(this, { port, headers, mark, records: [], running: true });
    this.agent = new http.Agent({ keepAlive: true });
  }

  /** Sends `rate` requests a second, each at its time, until `finish()`. */
  async start(rate) {
    const begin = clock();
    const open = new Set();
    for (let number = 0; this.running; number++) {
      await pause(Math.max(0, begin + number * 1000 / rate - clock()));
      const promise = this.one(KINDS[number % KINDS.length], `${this.mark}-${number}`).then((record) => {
        open.delete(promise);
        this.records.push(record);
      });
      open.add(promise);
    }
    await Promise.all(open);
    this.agent.destroy();
    return this.records;
  }

  finish() {
    this.running = false;
  }

  one(kind, id) {
    const targets = {
      info: ['GET', '/api/app:getInfo'],
      list: ['GET', `/api/${COLLECTION}:list?pageSize=5&sort=-id`],
      create: ['POST', `/api/${COLLECTION}:create`, JSON.stringify({ rid: id })],
    };
    const [method, target, body] = targets[kind];
    const record = { kind, id, method, start: clock() };
    return new Promise((resolve) => {
      const end = (error) => resolve(Object.assign(record, { end: clock() }, error && { error: error.code || error.message }));
      const headers = { ...this.headers, ...(body && { 'Content-Length': Buffer.byteLength(body) }) };
      const request = http.request({ agent: this.agent, host: '127.0.0.1', port: this.port, method, path: target, headers });
      const late = setTimeout(() => request.destroy(new Error(`no answer in ${PATIENCE / 1000} s`)), PATIENCE);
      const settle = (error) => { clearTimeout(late); end(error); };
      request.on('error', settle);
      request.on('response', (answer) => {
        record.status = answer.statusCode;
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('error', settle);
        answer.on('end', () => settle(this.judge(record, Buffer.concat(parts).toString())));
      });
      request.end(body);
    });
  }

  /** A 200 must be whole JSON and, for a new record, hold its id. */
  judge(record, text) {
    try {
      const answer = JSON.parse(text);
      if (record.status !== 200) record.code = (answer.error || (answer.errors || [])[0] || {}).code;
      else if (record.kind === 'create' && answer.data.rid !== record.id) return new Error('answer of another request');
    } catch {
      if (record.status === 200) return new Error('answer is not whole');
    }
    return undefined;
  }
}

const failed = (record) => record.error !== undefined || record.status !== 200;

module.exports = { Traffic, failed };
