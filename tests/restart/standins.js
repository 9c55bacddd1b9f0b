// Three stand-in nodes behind the interface that the scenarios use:
// `{ nodes, real, journaled, signIn(directory, proxy), start(node), commandFor(node, ms), journals(), stop() }`.
//
// `signIn` gives what must be said to the load and to the tabs, `{ load, tabs }`; `start` comes back when the
// node serves; `commandFor` lets it refuse with APP_COMMANDING and gives how long it did (ms); `journals` are
// the requests that were run, `{ at, method, id, node }`, as far as their method is `journaled`.
'use strict';

const { clock, pause, until } = require('../rig/rig.js');
const { command, healthy, readJournals, startNode, startNodes } = require('../rig/actors.js');

async function startStandIns(family, { node: more = [] } = {}) {
  const nodes = await startNodes(family, 3, more);
  return {
    nodes,
    real: false,
    journaled: ['GET', 'POST'],
    signIn: async () => ({ load: [], tabs: [] }),
    async start(node) {
      startNode(family, node, 0, more);
      await until(`${node.name} to serve`, 60_000, () => healthy(node));
    },
    async commandFor(node, ms) {
      const begin = clock();
      await command(node, 'commanding');
      await pause(ms);
      await command(node, 'running');
      return clock() - begin;
    },
    journals: async () => readJournals(nodes),
    stop: async () => {},
  };
}

module.exports = { startStandIns };
