// One node runs a command, as while a plugin is being enabled, and refuses everybody meanwhile.
'use strict';

const { FRAMES, told, tunnelRows, unnoticed, zero } = require('./verdict.js');

module.exports = {
  title: 'one of three nodes says APP_COMMANDING',
  long: { commanding: 20_000 },
  short: { commanding: 4000 },
  real: true,
  async disturb({ nodes: [, , node], cluster, proxy, times, marks }) {
    marks.commanding = await cluster.commandFor(node, times.commanding);
    await proxy.isBack(node);
  },
  rows: ({ counts, tabs, marks }) => [
    told('it said so for', `${(marks.commanding / 1000).toFixed(1)} s`),
    ...unnoticed({ counts }),
    ...tunnelRows(tabs).filter(({ what }) => what !== FRAMES),
    zero(FRAMES, tabs.frames),
  ],
};
