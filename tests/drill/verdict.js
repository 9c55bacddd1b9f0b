// What the records of the load, the journals of the nodes and the proxy's access log say together.
// Pure: it reads nothing and waits for nothing.
'use strict';

const failed = (record) => record.error !== undefined || record.status !== 200;

/** Lines of the journals, `{ at, method, id, node }`, by id. */
function byId(journals) {
  const found = new Map();
  for (const entry of journals) found.set(entry.id, [...(found.get(entry.id) || []), entry]);
  return found;
}

/**
 * Sorts every request of the load. `records` are the load's, `journals` the entries of all nodes,
 * `logged` the access log in the common shape (`proxies.js`).
 *
 * A request without a line in the access log counts as one of which nothing was sent: the proxy
 * has no other word on it. GETs may run twice (they are reads), POSTs may not.
 */
function judge({ records, journals, logged }) {
  const ran = byId(journals);
  const lines = new Map(logged.map((line) => [line.id, line]));
  const sentTo = (id) => (lines.get(id) ? lines.get(id).attempts.filter((attempt) => attempt.sent > 0) : []);
  const pick = (method, test) => records.filter((record) => record.method === method && test(record));
  const count = (test) => ({ GET: pick('GET', test), POST: pick('POST', test) });
  const times = (record) => (ran.get(record.id) || []).length;
  return {
    sent: count(() => true),
    answered: count((record) => !failed(record)),
    failed: count(failed),
    unsent: count((record) => failed(record) && sentTo(record.id).length === 0),
    headless: count((record) => failed(record) && (record.status === undefined || record.status !== 200)),
    cut: count((record) => failed(record) && record.status === 200),
    twice: count((record) => times(record) > 1),
    lost: count((record) => !failed(record) && times(record) === 0),
    ranButFailed: count((record) => failed(record) && times(record) > 0),
    misdelivered: count((record) => record.other !== undefined),
    denied: count((record) => lines.has(record.id) && sentTo(record.id).length === 0 && times(record) > 0),
    unlogged: count((record) => !lines.has(record.id)),
    retried: count((record) => (lines.get(record.id) || { attempts: [] }).attempts.length > 1),
  };
}

/**
 * The requests that left the client while `node` was stopped (`from` to `to`, ms) and went to it:
 * how many, and how long after `from` the last of them left. A stopped node journals what it was
 * sent when it goes on, so its own journal tells.
 */
function sentWhileStopped({ records, journals, node, from, to }) {
  const there = new Set(journals.filter((entry) => entry.node === node).map((entry) => entry.id));
  const during = records.filter((record) => record.start > from && record.start < to - 100);
  const went = during.filter((record) => there.has(record.id));
  const last = went.reduce((latest, record) => Math.max(latest, record.start - from), 0);
  const waited = during.map((record) => record.end - record.start).sort((a, b) => a - b);
  return { during: during.length, went: went.length, last, slowest: waited.at(-1) || 0 };
}

/** The reasons of failures with how often each was seen, most frequent first. */
function reasons(records) {
  const counts = {};
  for (const record of records) {
    const code = (/"code":"(\w+)"/.exec(record.text || '') || [])[1];
    const key = record.error || [record.status, code].filter(Boolean).join(' ');
    counts[key] = (counts[key] || 0) + 1;
  }
  return Object.entries(counts).sort((a, b) => b[1] - a[1]);
}

module.exports = { judge, reasons, sentWhileStopped };
