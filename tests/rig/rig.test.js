// `node --test tests/rig tests/drill tests/restart`
'use strict';

const assert = require('node:assert');
const test = require('node:test');
const { options, table } = require('./rig.js');
const { fromCobalance, fromHaproxy, fromNginx, idOf, sumBy } = require('./proxies.js');
const websocket = require('./websocket.js');

const NODES = [{ name: 'node1', port: 13001 }, { name: 'node2', port: 13002 }];

test('an id is found in the query only', () => {
  assert.equal(idOf('/api/posts:list?id=g12'), 'g12');
  assert.equal(idOf('/api/posts:list?a=1&id=p-race0-3&b=2'), 'p-race0-3');
  assert.equal(idOf('/api/posts:list?grid=7'), undefined);
  assert.equal(idOf(undefined), undefined);
});

test('a line of cobalance: nodes by name or by address', () => {
  const line = {
    path: '/api/posts:create?id=p1', status: 200, attempts: [
      { node: '127.0.0.1:13001', result: 'connect', sent: 0, reused: false }, { node: 'node2', result: 'ok', sent: 812, reused: true },
    ],
  };
  assert.deepEqual(fromCobalance(NODES)(line), {
    id: 'p1', target: line.path, status: 200, reason: '', attempts: [
      { node: 'node1', sent: 0, result: 'connect', reused: false }, { node: 'node2', sent: 812, result: 'ok', reused: true },
    ],
  });
});

test('a line of nginx: attempts are lists, and the name of the group is none', () => {
  const line = { target: '/api/posts:list?id=g1', status: 200, node: '127.0.0.1:13001, 127.0.0.1:13002', result: '502, 200', sent: '0, 120' };
  assert.deepEqual(fromNginx(NODES)(line).attempts.map(({ node, sent }) => [node, sent]), [['node1', 0], ['node2', 120]]);
  const refused = { target: '/', status: 502, node: 'myapp', result: '502', sent: '0' };
  assert.deepEqual(fromNginx(NODES)(refused).attempts, []);
});

test('counters are added up over the other labels', () => {
  const text = 'pool_total{node="a",event="new"} 3\npool_total{node="b",event="new"} 4\npool_total{event="reused",node="a"} 1\npool_total_other{event="new"} 9\n';
  assert.deepEqual(sumBy(text, 'pool_total', 'event'), { new: 7, reused: 1 });
});

test('arguments are read as their defaults are typed', () => {
  assert.deepEqual(options({ rate: 5, proxy: 'nginx' }, '', ['--rate', '7.5']), { rate: 7.5, proxy: 'nginx' });
});

test('what is false by default is a flag', () => {
  assert.deepEqual(options({ short: false, rate: 1 }, '', ['--short', '--rate', '2']), { short: true, rate: 2 });
});

test('a line of HAProxy: nobody, refused, sent', () => {
  const attempts = (node, result) => fromHaproxy({ target: '/?id=g1', status: 503, node, result }).attempts;
  assert.deepEqual(attempts('<NOSRV>', 'SC'), []);
  assert.deepEqual([attempts('node1', 'SC')[0].sent, attempts('node1', 'SH')[0].sent], [0, 1]);
});

test('the key of RFC 6455, 1.3 is accepted as it says', () => {
  assert.equal(websocket.acceptOf('dGhlIHNhbXBsZSBub25jZQ=='), 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
});

test('frames are put together however they arrive', () => {
  const long = { text: 'y'.repeat(300) };
  for (const masked of [false, true]) {
    const bytes = Buffer.concat([websocket.text({ a: 1 }, { masked }), websocket.text(long, { masked }), websocket.close(1012, { masked })]);
    for (const size of [1, 7, bytes.length]) {
      const reader = new websocket.Reader();
      const frames = [];
      for (let at = 0; at < bytes.length; at += size) frames.push(...reader.push(bytes.subarray(at, at + size)));
      assert.deepEqual(frames.slice(0, 2).map(({ payload }) => JSON.parse(Buffer.from(payload).toString())), [{ a: 1 }, long]);
      assert.deepEqual([frames.length, frames[2].opcode, websocket.closeCode(frames[2])], [3, websocket.CLOSE, 1012]);
    }
  }
});

test('a table is Markdown', () => {
  assert.equal(table([['a', 'b'], ['long', 1]]), '| a    | b |\n|------|--:|\n| long | 1 |');
});
