// `node --test tests/restart`
'use strict';

const assert = require('node:assert');
const test = require('node:test');
const { judge } = require('../drill/verdict.js');
const { busiest, judgeTabs, lossRows, requestRows, twiceAtOne } = require('./verdict.js');

const event = (tab, at, what, more) => ({ tab, at, what, ...more });
const seen = (rows, what) => rows.find((row) => row.what === what);

test('the busiest second is any second', () => {
  assert.equal(busiest([]), 0);
  assert.equal(busiest([0, 999, 1000, 1500, 1998]), 4);
  assert.equal(busiest([0, 1000, 2000]), 1);
});

test('tabs: what was moved, what was cut, and who came back when', () => {
  const events = [
    event(1, 5, 'try'), event(1, 10, 'open'), event(1, 5000, 'closed', { code: 1012 }), event(1, 6000, 'try'), event(1, 6400, 'open'),
    event(2, 6, 'try'), event(2, 10, 'open'), event(2, 5000, 'closed', { code: 0 }), event(2, 6500, 'try'), event(2, 6600, 'refused', { status: 503 }),
    event(3, 7, 'try'), event(3, 10, 'open'), event(3, 900, 'closed', { code: 1012 }), event(3, 905, 'open'),
    event(3, 2000, 'maintaining', { code: 'APP_RUNNING' }), event(3, 2001, 'maintaining', { code: 'APP_COMMANDING' }),
    event(1, 9000, 'alive'), event(3, 9000, 'alive'),
  ];
  assert.deepEqual(judgeTabs(events, 1000), {
    tabs: 3, codes: { 0: 1, 1012: 1 }, closed: 2, moved: 1, slowest: 1400, away: 1, refused: 1, gaveUp: 0, busiest: 2, frames: 1, silent: 1,
  });
});

test('two entries in one journal are found, one each in two are not', () => {
  const entry = (node, id) => ({ node, id });
  const journals = [entry('a', 'g1'), entry('b', 'g1'), entry('a', 'p2'), entry('a', 'p2')];
  assert.deepEqual(twiceAtOne(journals), [entry('a', 'p2')]);
});

function facts(record, line, journals = []) {
  const records = [{ start: 0, end: 1, ...record }];
  const logged = line ? [{ id: record.id, ...line }] : [];
  return { counts: judge({ records, journals, logged }), logged, journals, expected: 1 };
}

test('a POST that was sent may fail, once and with a reason', () => {
  const post = { id: 'p1', method: 'POST', status: 502, text: '{"error":{"code":"RESET"}}' };
  const once = [{ node: 'a', sent: 9 }];
  const fine = lossRows(facts(post, { reason: 'reset', attempts: once }));
  assert.ok(fine.every(({ holds }) => holds !== false));
  const silent = lossRows(facts(post, { reason: '', attempts: once }));
  assert.equal(seen(silent, 'of them without 502 or 504 and a reason').holds, false);
  const twice = lossRows(facts(post, { reason: 'reset', attempts: [...once, ...once] }));
  assert.equal(seen(twice, 'of them sent more than once').holds, false);
  const unsent = lossRows(facts(post, { reason: 'reset', attempts: [{ node: 'a', sent: 0 }] }));
  assert.equal(seen(unsent, 'requests that failed with nothing sent').holds, false);
});

test('a GET may not fail before its head', () => {
  const rows = lossRows(facts({ id: 'g1', method: 'GET', error: 'ECONNRESET' }, { reason: '', attempts: [] }));
  assert.equal(seen(rows, 'GETs that failed before their head').holds, false);
});

test('a refusal of a node that a client sees is visible; ours is none', () => {
  const refusal = (code, maintaining) => ({
    id: 'g1', method: 'GET', status: 503, text: JSON.stringify({ error: { status: 503, maintaining, code } }),
  });
  const count = (record) => seen(requestRows(facts(record)), 'visible `maintaining` answers').seen;
  const cases = [['APP_COMMANDING', true], ['APP_COMMANDING', false], ['PARKED_TIMEOUT', true]];
  assert.deepEqual(cases.map((refused) => count(refusal(...refused))), [1, 0, 0]);
});
