// One node is killed and started again.
'use strict';

const { pause } = require('../rig/rig.js');
const { lossRows, tunnelRows } = require('./verdict.js');

module.exports = {
  title: 'SIGKILL of one of three nodes, started again later',
  long: { killed: 8000 },
  short: { killed: 3000 },
  real: true,
  async disturb({ family, nodes: [node], cluster, proxy, times }) {
    await family.stop(node.member, 'SIGKILL');
    await pause(times.killed);
    await cluster.start(node);
    await proxy.isBack(node);
  },
  rows: (facts) => [...lossRows(facts), ...tunnelRows(facts.tabs)],
};
