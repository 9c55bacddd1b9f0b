// The proxy's configuration changes every second.
'use strict';

const { pause } = require('../rig/rig.js');
const { atMost, told, tunnelRows, unnoticed, zero } = require('./verdict.js');

module.exports = {
  title: 'a reload every second',
  long: { reloads: 60 },
  short: { reloads: 5 },
  async disturb({ proxy, times, marks }) {
    const generation = async () => ((await proxy.status()) || { config: { generation: 0 } }).config.generation;
    const before = await generation();
    for (let n = 1; n <= times.reloads; n++) {
      proxy.reload(n);
      await Promise.all([pause(1000), proxy.say ? proxy.say('reload') : null]);
    }
    marks.reloads = times.reloads;
    marks.generations = proxy.say ? await generation() - before : times.reloads;
  },
  rows: ({ counts, tabs, marks }) => [
    told('configurations written', marks.reloads),
    atMost('of them never used', marks.reloads - marks.generations, 0),
    ...unnoticed({ counts }),
    ...tunnelRows(tabs),
    zero('tunnels that ended', tabs.closed),
  ],
};
