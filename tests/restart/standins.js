// Three stand-in nodes behind the interface that the scenarios use:
// `{ nodes, load, start(node), commandFor(node, ms), journals(), stop() }`.
//
// `start` comes back when the node serves; `commandFor` lets it refuse with APP_COMMANDING and gives how
// long it did (ms); `journals` are all requests that were run, `{ at, method, id, node }`; `load` are
// arguments for the load.
'use strict';

const { clock, pause, until } = require('../rig/rig.js');
const { command, healthy, readJournals, startNode, startNodes } = require('../rig/actors.js');

async function startStandIns(family, { node: more = [] } = {}) {
  const nodes = await startNodes(family, 3, more);
  return {
    nodes,
    load: [],
    async start(node) {
      startNode(family, node, 0, more);
      await until(`${node.name} to serve`, 20_000, () => healthy(node));
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
