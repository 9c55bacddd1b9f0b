// One node hangs: it is stopped, and goes on later.
'use strict';

const { clock, pause } = require('../rig/rig.js');
const { sentWhileStopped } = require('../drill/verdict.js');
const { atMost, lossRows, told, tunnelRows } = require('./verdict.js');

module.exports = {
  title: 'SIGSTOP of one of three nodes',
  long: { stopped: 10_000 },
  short: { stopped: 4000 },
  real: true,
  async disturb({ nodes: [, node], times, marks }) {
    node.member.child.kill('SIGSTOP');
    marks.stopped = clock();
    await pause(times.stopped);
    marks.continued = clock();
    node.member.child.kill('SIGCONT');
  },
  rows(facts) {
    const { records, journals, marks } = facts;
    const there = sentWhileStopped({ records, journals, node: 'node2', from: marks.stopped, to: marks.continued });
    const slowest = (method, to) => Math.max(0, ...records
      .filter((record) => record.method === method && record.end > marks.stopped && record.start < marks.continued)
      .map((record) => (record[to] || record.end) - record.start));
    return [
      ...lossRows(facts),
      atMost('slowest head of a GET', slowest('GET', 'head'), 3000, ' ms'),
      // What stops between its head and its end cannot be moved.
      told('slowest end of a GET', `${Math.round(slowest('GET', 'end'))} ms`),
      told('slowest end of a POST', `${Math.round(slowest('POST', 'end'))} ms`),
      atMost('last request sent to it, after the stop', there.last, 1000, ' ms'),
      told('requests sent to it meanwhile', `${there.went} of ${there.during}`),
      ...tunnelRows(facts.tabs),
    ];
  },
};
