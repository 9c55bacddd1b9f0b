// `node --test tests/rig tests/drill`
'use strict';

const assert = require('node:assert');
const test = require('node:test');
const { options, table } = require('./rig.js');
const { fromCobalance, fromNginx, idOf, sumBy } = require('./proxies.js');

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

test('a table is Markdown', () => {
  assert.equal(table([['a', 'b'], ['long', 1]]), '| a    | b |\n|------|--:|\n| long | 1 |');
});
