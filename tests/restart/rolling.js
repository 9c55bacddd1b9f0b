// Every node in its turn: emptied, ended, started, given back.
'use strict';

const { atMost, told, tunnelRows, unnoticed, zero } = require('./verdict.js');

/** A container's runtime waits that long between SIGTERM and SIGKILL. */
const GRACE = 10_000;

module.exports = {
  title: 'rolling restart: drain, SIGTERM, start, ready, node by node',
  long: { window: 10 },
  short: { window: 1 },
  real: true,
  async disturb({ family, nodes, cluster, proxy, times, marks, whenOpen }) {
    marks.killed = 0;
    for (const node of nodes) {
      await proxy.drain(node, times.window);
      const ended = await family.stop(node.member, 'SIGTERM', GRACE);
      if (!ended) { marks.killed += 1; await family.stop(node.member, 'SIGKILL'); }
      await cluster.start(node);
      await proxy.ready(node);
      await whenOpen(10_000).catch(() => {});
    }
  },
  rows: ({ counts, tabs, marks }) => [
    ...unnoticed({ counts }),
    ...tunnelRows(tabs).filter(({ what }) => !/slowest|most handshakes/.test(what)),
    zero('tunnels ended without Close 1012', tabs.closed - tabs.moved),
    atMost('slowest return after a Close', tabs.slowest, 3000, ' ms'),
    atMost('most handshakes within a second', tabs.busiest, 100),
    told('nodes that did not end at SIGTERM in 10 s', marks.killed),
  ],
};
