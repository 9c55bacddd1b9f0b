// As much of WebSocket (RFC 6455) as the drills need, for both ends: the opening handshake, and text
// and Close frames that are not split.
'use strict';

const { createHash, randomBytes } = require('node:crypto');

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'; // RFC 6455, 1.3
const TEXT = 1;
const CLOSE = 8;
const LONGEST = 65_535; // bytes of a payload: what two bytes of length can say

const acceptOf = (key) => createHash('sha1').update(key + GUID).digest('base64');

/** A client's opening handshake. */
const opening = (path, host) => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\n`
  + `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`;

/** The answer to it, for the key of the request. */
const opened = (key) => 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
  + `Sec-WebSocket-Accept: ${acceptOf(key)}\r\n\r\n`;

/** One whole frame; a client's are masked. */
function frame(opcode, payload, { masked = false } = {}) {
  const data = Buffer.from(payload);
  if (data.length > LONGEST) throw new RangeError(`a frame of ${data.length} bytes`);
  const length = data.length < 126 ? [data.length] : [126, data.length >> 8, data.length & 255];
  if (!masked) return Buffer.concat([Buffer.from([0x80 | opcode, ...length]), data]);
  length[0] |= 0x80;
  const mask = randomBytes(4);
  return Buffer.concat([Buffer.from([0x80 | opcode, ...length]), mask, data.map((byte, i) => byte ^ mask[i % 4])]);
}

const text = (value, how) => frame(TEXT, JSON.stringify(value), how);

const close = (code, how) => frame(CLOSE, [code >> 8, code & 255], how);

/** Puts frames together from what arrives. */
class Reader {
  constructor() { this.rest = Buffer.alloc(0); }

  /** The frames that are whole now, as `{ opcode, payload }`. */
  push(chunk) {
    this.rest = this.rest.length ? Buffer.concat([this.rest, chunk]) : chunk;
    const frames = [];
    for (;;) {
      const found = this.next();
      if (!found) return frames;
      frames.push(found);
    }
  }

  next() {
    const { rest } = this;
    if (rest.length < 2) return null;
    const masked = rest[1] & 0x80;
    const short = rest[1] & 0x7f;
    if (short === 127) throw new RangeError('a frame that is longer than any of the drills');
    const begin = 2 + (short === 126 ? 2 : 0) + (masked ? 4 : 0);
    if (rest.length < begin) return null;
    const length = short === 126 ? rest.readUInt16BE(2) : short;
    if (rest.length < begin + length) return null;
    const mask = rest.subarray(begin - 4, begin);
    const data = rest.subarray(begin, begin + length);
    this.rest = rest.subarray(begin + length);
    return { opcode: rest[0] & 0x0f, payload: masked ? data.map((byte, i) => byte ^ mask[i % 4]) : data };
  }
}

/** The code of a Close frame; 1005 stands for none (RFC 6455, 7.1.5). */
const closeCode = ({ payload }) => (payload.length < 2 ? 1005 : Buffer.from(payload).readUInt16BE(0));

module.exports = { CLOSE, Reader, TEXT, acceptOf, close, closeCode, opened, opening, text };
