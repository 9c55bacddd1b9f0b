// Another process of cobalance takes over, several times, while the ones before it still finish their work.
'use strict';

const fs = require('node:fs');
const { pause, until } = require('../rig/rig.js');
const { atMost, told, tunnelRows, unnoticed, zero } = require('./verdict.js');

/** Whether a process runs: one that has ended and that nobody has asked after is no more than its number. */
function runs(pid) {
  try {
    return !/\) [ZX]/.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

/** A process that a member of the family has started, as a member of its own: it is ended with the others. */
function adopt(family, pid) {
  const member = { name: `cobalance-${pid}`, pid, last: 'SIGKILL', running: true };
  member.child = { kill: (signal) => runs(pid) && process.kill(pid, signal) };
  member.ended = (async () => {
    while (runs(pid)) await pause(50);
    member.running = false;
    return { code: null, signal: null };
  })();
  family.members.add(member);
  return member;
}

module.exports = {
  title: 'cobalance is upgraded again and again',
  long: { upgrades: 5, between: 10_000, drain: 60_000 },
  short: { upgrades: 5, between: 1000, drain: 60_000 },
  proxies: ['cobalance'],
  // An old process that has anything left by then has lost it.
  config: { server: 'upgrade_drain_timeout = "40s"' },
  async disturb({ family, proxy, times, marks, whenOpen }) {
    const line = [proxy.member];
    for (let n = 0; n < times.upgrades; n++) {
      const { stdout } = await proxy.say('upgrade');
      const [, pid] = /^process (\d+) has taken over/.exec(stdout);
      const heir = adopt(family, Number(pid));
      line.push(heir);
      proxy.end = () => family.stop(heir);
      await pause(times.between);
    }
    marks.wanted = times.upgrades;
    marks.upgrades = new Set(line.map(({ pid }) => pid)).size - 1;
    await until('the old processes to end', times.drain, () => line.slice(0, -1).every(({ running }) => !running));
    marks.reigning = line.at(-1).running;
    await whenOpen(10_000).catch(() => {});
  },
  rows: ({ counts, tabs, marks }) => [
    told('upgrades', marks.upgrades),
    zero('of them not made', marks.wanted - marks.upgrades),
    zero('last process not there at the end', marks.reigning ? 0 : 1),
    ...unnoticed({ counts }),
    ...tunnelRows(tabs).filter(({ what }) => !/most handshakes/.test(what)),
    atMost('most handshakes within a second', tabs.busiest, 100),
    zero('tunnels that ended', tabs.closed),
  ],
};
