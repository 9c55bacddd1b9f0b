// All nodes are lost at once, and nobody serves for a while.
'use strict';

const { clock, pause } = require('../rig/rig.js');
const { lossRows, told, tunnelRows, zero } = require('./verdict.js');

module.exports = {
  title: 'all nodes down',
  long: { down: 8000 },
  short: { down: 3000 },
  real: true,
  async disturb({ family, nodes, cluster, times, marks, whenOpen }) {
    marks.down = clock();
    await Promise.all(nodes.map((node) => family.stop(node.member, 'SIGKILL')));
    marks.gone = clock();
    await pause(times.down);
    await Promise.all(nodes.map((node) => cluster.start(node)));
    marks.back = clock();
    await whenOpen(45_000).catch(() => {});
  },
  rows(facts) {
    const { records, marks, tabs, counts, logged } = facts;
    const meanwhile = records.filter(({ start }) => start > marks.gone && start < marks.back);
    const failed = meanwhile.filter((record) => record.error !== undefined || record.status !== 200);
    return [
      told('nobody served for', `${((marks.back - marks.down) / 1000).toFixed(1)} s`),
      told('requests that left meanwhile', meanwhile.length),
      zero('of them failed', failed.length),
      // What a node had taken when it was lost is nobody's to wait with: it fails, safe or not.
      ...lossRows({ counts, logged }).filter(({ what }) => !what.startsWith('GETs')),
      told('slowest answer', `${Math.round(Math.max(0, ...records.map(({ start, end }) => end - start)))} ms`),
      ...tunnelRows(tabs).filter(({ what }) => what !== 'upgrades refused'),
      zero('upgrades refused', tabs.refused),
    ];
  },
};
