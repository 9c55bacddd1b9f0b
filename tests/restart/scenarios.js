// The scenarios: what is done to the nodes or the proxy, and what must hold then.
//
// `disturb(world)` may leave marks (clock times) for `rows(facts)`; `world` is
// `{ family, nodes, proxy, times, marks, whenOpen() }`. Times are in ms; the short ones are CI's.
'use strict';

const { clock, pause, until } = require('../rig/rig.js');
const { command, healthy, startNode } = require('../rig/actors.js');
const { sentWhileStopped } = require('../drill/verdict.js');
const { atMost, lossRows, told, tunnelRows, unnoticed, zero } = require('./verdict.js');

const LONG = { window: 10, stopped: 10_000, down: 8000, commanding: 20_000, killed: 8000, reloads: 60, settle: 5000 };
const SHORT = { window: 1, stopped: 4000, down: 3000, commanding: 4000, killed: 3000, reloads: 5, settle: 2500 };

/** A container's runtime waits that long between SIGTERM and SIGKILL. */
const GRACE = 10_000;

const isUp = (node) => until(`${node.name} to serve`, 20_000, () => healthy(node));

/** Waits until the proxy sends requests to a node again, where it can say so. */
async function isBack({ proxy }, node) {
  const known = async () => {
    const status = await proxy.status();
    return !status || status.upstreams[0].nodes.some(({ name, state }) => name === node.name && state === 'up');
  };
  await until(`${node.name} to be up`, 30_000, known);
}

const rolling = {
  title: 'rolling restart: drain, SIGTERM, start, ready, node by node',
  async disturb({ family, nodes, proxy, times, marks, whenOpen }) {
    marks.killed = 0;
    for (const node of nodes) {
      await proxy.drain(node, times.window);
      const ended = await family.stop(node.member, 'SIGTERM', GRACE);
      if (!ended) { marks.killed += 1; await family.stop(node.member, 'SIGKILL'); }
      startNode(family, node, 0);
      await isUp(node);
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

const kill = {
  title: 'SIGKILL of one of three nodes, started again later',
  async disturb(world) {
    const { family, nodes: [node], times } = world;
    await family.stop(node.member, 'SIGKILL');
    await pause(times.killed);
    startNode(family, node, 0);
    await isUp(node);
    await isBack(world, node);
  },
  rows: (facts) => [...lossRows(facts), ...tunnelRows(facts.tabs)],
};

const stop = {
  title: 'SIGSTOP of one of three nodes',
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

const down = {
  title: 'all nodes down',
  // More than the defaults hold at once, because the load is far above that of a NocoBase cluster.
  extra: 'park_limit = 10000\npark_bytes = "1GiB"',
  async disturb({ family, nodes, times, marks, whenOpen }) {
    marks.down = clock();
    await Promise.all(nodes.map((node) => family.stop(node.member, 'SIGKILL')));
    marks.gone = clock();
    await pause(times.down);
    nodes.forEach((node) => startNode(family, node, 0));
    await Promise.all(nodes.map(isUp));
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

const commanding = {
  title: 'one of three nodes says APP_COMMANDING',
  async disturb(world) {
    const { nodes: [, , node], times } = world;
    await command(node, 'commanding');
    await pause(times.commanding);
    await command(node, 'running');
    await isBack(world, node);
  },
  rows: ({ counts, tabs }) => [...unnoticed({ counts }), ...tunnelRows(tabs)],
};

const reload = {
  title: 'a reload every second',
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

module.exports = { LONG, SHORT, SCENARIOS: { rolling, kill, stop, down, commanding, reload, upload: require('./upload.js') } };
