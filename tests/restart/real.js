// A real NocoBase cluster behind the interface that the scenarios use (`standins.js`): three nodes on one
// database, started once for all scenarios. What was run is what the collection holds afterwards: it is asked
// for through NocoBase's API.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { call, clock, until } = require('../rig/rig.js');
const { COLLECTION, Cluster, signIn } = require('../real/cluster.js');

const READING = 60_000; // ms: some thousand records at once

async function startReal(family) {
  const cluster = new Cluster(family);
  await cluster.start();
  const base = (node) => `http://127.0.0.1:${node.port}`;
  const anyone = async () => {
    const up = await Promise.all(cluster.nodes.map((node) => cluster.serves(node)));
    return base(cluster.nodes[up.indexOf(true)]);
  };
  let mark;
  return {
    nodes: cluster.nodes,
    real: true,
    journaled: ['POST'],

    /** Signs in through the proxy, as everybody does. */
    async signIn(directory, proxy) {
      mark = `h${Date.now().toString(36)}`;
      const headers = await signIn(base(proxy));
      const file = path.join(directory, 'nocobase.json');
      fs.writeFileSync(file, JSON.stringify({ headers, collection: COLLECTION, mark }));
      return { load: ['--nocobase', file], tabs: ['--token', headers.Authorization.replace('Bearer ', '')] };
    },

    start: (node) => cluster.startNode(node),

    /** `app:restart`, again and again: each is a few seconds of APP_COMMANDING, and of nothing else. */
    async commandFor(node, ms) {
      const headers = await signIn(base(node));
      let refused = 0;
      while (refused < ms) {
        const answer = await call(`${base(node)}/api/app:restart`, { method: 'POST', headers, body: '{}' });
        if (answer.status !== 200) throw new Error(`no restart: ${answer.status} ${answer.body.slice(0, 300)}`);
        await until(`${node.name} to refuse`, 20_000, async () => !await cluster.serves(node));
        const begin = clock();
        await until(`${node.name} to serve again`, 60_000, () => cluster.serves(node));
        refused += clock() - begin;
      }
      return refused;
    },

    /** The records of this scenario: each was run as often as it is there. */
    async journals() {
      const from = await anyone();
      const filter = encodeURIComponent(JSON.stringify({ rid: { $includes: `${mark}-` } }));
      const answer = await call(`${from}/api/${COLLECTION}:list?paginate=false&fields=rid&filter=${filter}`, {
        headers: await signIn(from), timeout: READING,
      });
      if (answer.status !== 200) throw new Error(`no records: ${answer.status} ${answer.body.slice(0, 300)}`);
      return JSON.parse(answer.body).data.map(({ rid }) => ({
        at: 0, method: 'POST', id: rid.slice(mark.length + 1), node: 'the database',
      }));
    },

    /** It goes on for the next scenario. */
    stop: async () => {},
    end: () => cluster.stop(),
  };
}

module.exports = { startReal };
