// The processes around a proxy: the nodes behind it, and the load before it.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { call, freePorts, statusOf, until } = require('./rig.js');

/** `count` nodes that serve, as `{ name, port, control, journal, member }`; `more` are arguments of theirs. */
async function startNodes(family, count, more = []) {
  const ports = await freePorts(2 * count);
  const nodes = Array.from({ length: count }, (_, i) => ({
    name: `node${i + 1}`, port: ports[i], control: ports[count + i], journal: path.join(family.directory, `node${i + 1}.journal`),
  }));
  nodes.forEach((node) => startNode(family, node, 0, more));
  await until('the nodes to serve', 60_000, async () => (await Promise.all(nodes.map(healthy))).every(Boolean));
  return nodes;
}

/** Starts a node, or starts it again; it refuses for the first `starting` ms. */
function startNode(family, node, starting, more = []) {
  node.member = family.start(node.name, process.execPath, [
    path.join(__dirname, 'origin.js'), '--name', node.name, '--port', node.port, '--control', node.control,
    '--journal', node.journal, '--starting', starting, ...more,
  ].map(String));
}

const healthy = (node) => statusOf(`http://127.0.0.1:${node.port}/api/__health_check`).then((status) => status === 200);

/** Lets a node refuse with APP_COMMANDING, or serve again. */
const command = (node, mode) => call(`http://127.0.0.1:${node.control}/${mode}`);

function startLoad(family, proxy, { rate, seconds }, more = []) {
  const out = path.join(family.directory, 'load.jsonl');
  const member = family.start('load', process.execPath, [
    path.join(__dirname, 'load.js'), '--port', proxy.port, '--rate', rate, '--seconds', seconds, '--out', out, ...more,
  ].map(String));
  const said = (word) => {
    const text = fs.readFileSync(path.join(family.directory, 'load.log'), 'utf8');
    return Number((new RegExp(`^${word} (.*)$`, 'm').exec(text) || [])[1]);
  };
  return { member, out, said };
}

const readJournals = (nodes) => nodes.flatMap((node) => fs.readFileSync(node.journal, 'utf8')
  .split('\n').filter(Boolean).map((line) => {
    const [at, method, id] = line.split(' ');
    return { at: Number(at), method, id, node: node.name };
  }));

module.exports = { command, healthy, readJournals, startLoad, startNode, startNodes };
