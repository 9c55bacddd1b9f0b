// `node --test tests/rig tests/drill`
'use strict';

const assert = require('node:assert');
const test = require('node:test');
const { judge, reasons, sentWhileStopped } = require('./verdict.js');

const ok = (id, more) => ({ id, method: id[0] === 'p' ? 'POST' : 'GET', status: 200, start: 0, end: 1, ...more });
const ran = (id, node = 'node1') => ({ at: 0, method: 'GET', id, node });
const logged = (id, ...sent) => ({ id, status: 200, attempts: sent.map((bytes) => ({ node: 'node1', sent: bytes })) });
const sizes = (count) => [count.GET.length, count.POST.length];

test('an ordinary request is nothing to speak of', () => {
  const counts = judge({ records: [ok('g1'), ok('p1')], journals: [ran('g1'), ran('p1')], logged: [logged('g1', 100), logged('p1', 100)] });
  assert.deepEqual(sizes(counts.answered), [1, 1]);
  for (const name of ['failed', 'unsent', 'headless', 'cut', 'twice', 'lost', 'misdelivered', 'denied', 'unlogged', 'retried']) {
    assert.deepEqual(sizes(counts[name]), [0, 0], name);
  }
});

test('a failure with nothing sent, by the log or for want of a line', () => {
  const records = [ok('p1', { status: 502 }), ok('p2', { status: undefined, error: 'ECONNRESET' }), ok('p3', { status: 502 })];
  const counts = judge({ records, journals: [], logged: [logged('p1', 0, 0), logged('p3', 0, 10)] });
  assert.deepEqual(counts.unsent.POST.map(({ id }) => id), ['p1', 'p2']);
  assert.deepEqual(sizes(counts.unlogged), [0, 1]);
});

test('a failure before the head of a 200 is told from one after it', () => {
  const records = [ok('g1', { status: 503 }), ok('g2', { status: undefined, error: 'ECONNRESET' }), ok('g3', { error: 'ECONNRESET' })];
  const counts = judge({ records, journals: [], logged: [] });
  assert.deepEqual(sizes(counts.headless), [2, 0]);
  assert.deepEqual(sizes(counts.cut), [1, 0]);
});

test('run twice, lost, misdelivered, and a log that denies', () => {
  const records = [ok('p1'), ok('p2'), ok('p3', { error: 'answer of another request', other: 'p9' }), ok('p4', { status: 502 })];
  const counts = judge({ records, journals: [ran('p1'), ran('p1', 'node2'), ran('p3'), ran('p4')], logged: [logged('p1', 9, 9), logged('p4', 0)] });
  assert.deepEqual(counts.twice.POST.map(({ id }) => id), ['p1']);
  assert.deepEqual(counts.lost.POST.map(({ id }) => id), ['p2']);
  assert.deepEqual(counts.misdelivered.POST.map(({ id }) => id), ['p3']);
  assert.deepEqual(counts.denied.POST.map(({ id }) => id), ['p4']);
  assert.deepEqual(counts.retried.POST.map(({ id }) => id), ['p1']);
});

test('what went to a stopped node is in its journal when it goes on', () => {
  const records = [ok('g1', { start: 900, end: 950 }), ok('g2', { start: 1200, end: 6050 }), ok('g3', { start: 1500, end: 1520 }), ok('g4', { start: 5990, end: 6020 })];
  const journals = [ran('g1', 'node2'), ran('g2', 'node2'), ran('g3', 'node1'), ran('g4', 'node2')];
  const stopped = sentWhileStopped({ records, journals, node: 'node2', from: 1000, to: 6000 });
  assert.deepEqual(stopped, { during: 2, went: 1, last: 200, slowest: 4850 });
});

test('reasons are grouped, the most frequent first', () => {
  const records = [{ status: 503, text: '{"error":{"code":"APP_COMMANDING"}}' }, { error: 'ECONNRESET' }, { status: 503, text: '{"error":{"code":"APP_COMMANDING"}}' }];
  assert.deepEqual(reasons(records), [['503 APP_COMMANDING', 2], ['ECONNRESET', 1]]);
});
