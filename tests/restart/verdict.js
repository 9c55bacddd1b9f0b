// What the events of the tabs say, and what of a run must hold. Pure: it reads nothing and waits for
// nothing.
'use strict';

const { reasons } = require('../drill/verdict.js');

/** The gateway of a node refuses with codes of its own; while all of them do, the proxy may say `maintaining` as well. */
const REFUSAL = /"code":\s*"(APP|COMMAND)_/;
const MAINTAINING = /"maintaining":\s*true/;
/** What pages show as a dialog. */
const FRAMES = '`maintaining` frames seen by tabs';

/** The most `times` (ms) that lie within any `window` ms. */
function busiest(times, window = 1000) {
  const sorted = [...times].sort((a, b) => a - b);
  let most = 0;
  for (let first = 0, last = 0; last < sorted.length; last++) {
    while (sorted[last] - sorted[first] >= window) first += 1;
    most = Math.max(most, last - first + 1);
  }
  return most;
}

/**
 * What happened to the tabs after `from`: how many tunnels were closed with which code (0: cut),
 * how long each took to be back, how many never came back, and the busiest second of handshakes.
 */
function judgeTabs(events, from) {
  const tabs = new Map();
  for (const event of events) tabs.set(event.tab, [...(tabs.get(event.tab) || []), event]);
  const later = events.filter((event) => event.at >= from);
  const of = (what) => later.filter((event) => event.what === what);
  const codes = {};
  for (const { code } of of('closed')) codes[code] = (codes[code] || 0) + 1;
  const returns = [...tabs.values()].flatMap((story) => backAfter(story, from));
  return {
    tabs: tabs.size,
    codes,
    closed: of('closed').length,
    moved: of('closed').filter(({ code }) => code === 1012).length,
    slowest: Math.max(0, ...returns.filter(Number.isFinite)),
    away: returns.filter((wait) => wait === Infinity).length,
    refused: of('refused').length,
    gaveUp: of('gaveup').length,
    busiest: busiest(of('try').map(({ at }) => at)),
    frames: of('maintaining').filter(({ code }) => code !== 'APP_RUNNING').length,
    silent: tabs.size - new Set(of('alive').map(({ tab }) => tab)).size,
  };
}

/** From each end of a tab's tunnel to the next one that opened; infinite where none did. */
function backAfter(story, from) {
  const waits = [];
  let closed = null;
  for (const { what, at } of story) {
    if (what === 'closed' && at >= from) closed = at;
    if (what === 'open' && closed !== null) { waits.push(at - closed); closed = null; }
  }
  return closed === null ? waits : [...waits, Infinity];
}

/** Requests with more than one entry in the journal of one node. */
function twiceAtOne(journals) {
  const seen = new Set();
  return journals.filter(({ id, node }) => {
    const key = `${node} ${id}`;
    return seen.has(key) || !seen.add(key);
  });
}

/** The line of a table: what was counted, what it was, what it must be, and whether it holds. */
const told = (what, seen) => ({ what, seen, must: '' });
const zero = (what, seen) => ({ what, seen, must: '0', holds: seen === 0 });
const atMost = (what, seen, limit, unit = '') => ({
  what, seen: `${Math.round(seen)}${unit}`, must: `at most ${limit}${unit}`, holds: seen <= limit,
});
const all = (what, seen, of) => ({ what, seen: `${seen} of ${of}`, must: 'all', holds: seen === of });

const both = ({ GET, POST }) => GET.length + POST.length;

/** What every scenario counts of its requests. */
function requestRows({ counts, journals, expected, journaled = ['GET', 'POST'] }) {
  return [
    all('requests with a record', both(counts.sent), expected),
    told('GETs / POSTs that failed', `${counts.failed.GET.length} / ${counts.failed.POST.length}`),
    zero('POSTs in the journals twice', counts.twice.POST.length),
    zero('anything in one journal twice', twiceAtOne(journals).length),
    zero('answered 200 and in no journal', journaled.reduce((sum, method) => sum + counts.lost[method].length, 0)),
    zero('answered with what belongs to another', both(counts.misdelivered)),
    zero('visible `maintaining` answers', visible(counts).length),
  ];
}

const visible = ({ failed }) => [...failed.GET, ...failed.POST].filter(({ text = '' }) => MAINTAINING.test(text) && REFUSAL.test(text));

/** Nobody noticed anything. */
const unnoticed = ({ counts }) => [zero('failed requests', both(counts.failed))];

/** What must be of requests that a lost node had taken: GETs are repeated, POSTs fail once, with a reason. */
function lossRows({ counts, logged }) {
  const lines = new Map(logged.map((line) => [line.id, line]));
  const line = (record) => lines.get(record.id) || { attempts: [], reason: '' };
  const sends = (record) => line(record).attempts.filter((attempt) => attempt.sent > 0).length;
  const sent = counts.headless.POST.filter((record) => sends(record) > 0);
  return [
    zero('GETs that failed before their head', counts.headless.GET.length),
    zero('requests that failed with nothing sent', both(counts.unsent)),
    told('POSTs that failed after they were sent', sent.length),
    zero('of them sent more than once', sent.filter((record) => sends(record) > 1).length),
    zero('of them without 502 or 504 and a reason', sent.filter((record) => ![502, 504].includes(record.status) || !line(record).reason).length),
  ];
}

/** What happened to the tunnels, where tabs may have lost theirs. */
function tunnelRows(tabs) {
  const closes = Object.entries(tabs.codes).map(([code, count]) => `${count} × ${code === '0' ? 'cut' : code}`);
  return [
    told('tunnels / ended', `${tabs.tabs} / ${closes.join(', ') || 0}`),
    zero('tabs that did not come back', tabs.away + tabs.gaveUp),
    zero('tabs with nobody at the other end', tabs.silent),
    told('slowest return', `${Math.round(tabs.slowest)} ms`),
    told('most handshakes within a second', tabs.busiest),
    told('upgrades refused', tabs.refused),
    told(FRAMES, tabs.frames),
  ];
}

/** How requests failed, most frequent first. */
const failures = ({ counts }) => ['GET', 'POST'].flatMap((method) => reasons(counts.failed[method])
  .map(([reason, times]) => `failed ${method}: ${times} × ${reason}`));

module.exports = {
  FRAMES, all, atMost, busiest, both, failures, judgeTabs, lossRows, requestRows, told, tunnelRows, twiceAtOne, unnoticed,
  zero,
};
