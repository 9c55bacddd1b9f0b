// A node for slow clients: its health check, a large answer, and an end to every upload.
//
//   node origin.js --port N
'use strict';

const http = require('node:http');
const { options } = require('../rig/rig.js');

const given = options({ port: 0 }, 'node origin.js --port N');
const large = Buffer.alloc(512 * 1024, 'x');

function answer(request, response) {
  request.on('error', () => {});
  request.resume();
  request.on('end', () => {
    const body = request.url.startsWith('/large') ? large : 'ok';
    response.writeHead(200, { 'Content-Type': 'text/plain', 'Content-Length': body.length });
    response.end(body);
  });
}

http.createServer(answer).listen(given.port, '127.0.0.1');
