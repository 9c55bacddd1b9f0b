// An origin that closes at the instant of reuse: the first request on a connection is served, and
// the first byte of a second one closes the socket unanswered and unjournalled. Health checks are
// always served, so that the node stays eligible. It sends no `Keep-Alive` hint.
//
//   node racer.js --port N --journal FILE
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const { clock, options } = require('../rig/rig.js');

const given = options({ port: 0, journal: '' }, 'node racer.js --port N --journal FILE');
const journal = fs.openSync(given.journal, 'a');
const PROBE = 'GET /api/__health_check ';

const answer = (text) => `HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`;

/** A whole request at the start of `text`: its method, its id and its length, or undefined. */
function whole(text) {
  const head = text.indexOf('\r\n\r\n');
  if (head < 0) return undefined;
  const length = Number((/^content-length: *(\d+)/im.exec(text) || [0, 0])[1]);
  if (text.length < head + 4 + length) return undefined;
  const [method, target] = text.split(' ', 2);
  return { method, id: (/[?&]id=([\w-]+)/.exec(target) || [])[1], length: head + 4 + length };
}

function serve(socket) {
  let served = 0;
  let text = '';
  socket.setNoDelay(true);
  socket.on('error', () => {}); // The peer may leave as it likes: nothing here depends on it.
  socket.on('data', (part) => {
    text += part.toString('latin1');
    const isProbe = text.startsWith(PROBE.slice(0, text.length));
    if (served > 0 && !isProbe) return socket.destroy();
    const request = whole(text);
    if (!request) return undefined;
    text = text.slice(request.length);
    if (isProbe) return socket.write(answer('ok'));
    served += 1;
    fs.writeSync(journal, `${clock().toFixed(1)} ${request.method} ${request.id}\n`);
    return socket.write(answer(JSON.stringify({ data: { id: request.id } })));
  });
}

net.createServer(serve).listen(given.port, '127.0.0.1');
