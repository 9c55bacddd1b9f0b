// Restarts under load: three nodes, requests at a fixed rate, half of them POSTs, and many tunnels, while
// nodes are restarted, killed, stopped, sent into maintenance, all down at once, or the configuration is
// reloaded. Each scenario starts everything anew and prints what was counted beside what must be.
// The nodes are stand-ins, or (`--real`) those of a real NocoBase cluster, which is started once.
//
// Ends with 0 if what must hold for cobalance holds, 1 if not, 3 if it could not run. Other proxies are
// measured alike and decide nothing.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const {
  Family, call, clock, freePorts, jsonLines, options, pause, run, table, until, workDirectory,
} = require('../rig/rig.js');
const { startLoad } = require('../rig/actors.js');
const { startProxy } = require('../rig/proxies.js');
const { judge } = require('../drill/verdict.js');
const { failures, judgeTabs, requestRows } = require('./verdict.js');
const SCENARIOS = require('./scenarios.js');
const { startStandIns } = require('./standins.js');
const { startReal } = require('./real.js');

const REAL = Object.keys(SCENARIOS).filter((name) => SCENARIOS[name].real);
const USAGE = `tests/restart/run [--short | --real] [--only NAME,…] [--proxy KIND,…] [--rate N] [--tunnels N] [--json FILE]
  --short    a few seconds each, 200 requests/s and 100 tunnels
  --real     against a NocoBase cluster, 50 requests/s and 200 tunnels: ${REAL.join(', ')}
  --only     of ${Object.keys(SCENARIOS).join(', ')}
  --proxy    of cobalance, nginx, haproxy
  --rate     requests/s (500), half of them POSTs
  --tunnels  open pages (2000)
  --json     writes the numbers there
  COBALANCE=FILE names the binary; without it, what cargo built last.
  COBALANCE_LAB=DIRECTORY is where NocoBase is installed, for --real.`;
const given = options({ short: false, real: false, only: '', proxy: 'cobalance', rate: 0, tunnels: 0, json: '' }, USAGE);
const [RATE, TUNNELS] = given.real ? [50, 200] : given.short ? [200, 100] : [500, 2000];
const rate = given.rate || RATE;
const tunnels = given.tunnels || TUNNELS;

const WARM = given.short ? 1000 : 3000; // ms of load before anything happens
const SETTLE = given.short ? 2500 : 5000; // and after it
const LONGEST = 300; // s of load: a bound that no scenario reaches
const OPENING = 200; // tabs a second

async function startTabs(family, proxy, more) {
  const [control] = await freePorts(1);
  const out = path.join(family.directory, 'tabs.jsonl');
  const member = family.start('tabs', process.execPath, [
    path.join(__dirname, 'tabs.js'), '--port', proxy.port, '--control', control, '--tunnels', tunnels, '--out', out,
    '--pace', OPENING, ...more,
  ].map(String));
  const ask = (what) => call(`http://127.0.0.1:${control}/${what}`, { timeout: 15_000 }).then(({ body }) => Number(body));
  const open = () => ask('open').catch(() => -1);
  const whenOpen = (limit) => until('all tabs to be open', limit, async () => (await open()) === tunnels);
  await whenOpen(60_000 + 2000 * tunnels / OPENING);
  return { out, whenOpen, finish: async () => { await ask('finish'); await member.ended; } };
}

/** Starts everything, lets it happen, and gives what all of them wrote. */
async function facts(family, kind, scenario, real) {
  const cluster = real || await startStandIns(family, scenario);
  const { nodes } = cluster;
  const proxy = await startProxy(kind, family, nodes, { more: scenario.config, tuned: true });
  const known = await cluster.signIn(family.directory, proxy);
  const tabs = await startTabs(family, proxy, known.tabs);
  const load = startLoad(family, proxy, { rate, seconds: LONGEST }, known.load);
  await until('the load to begin', 60_000, () => load.said('begin'));
  await pause(WARM);
  const marks = { begin: clock() };
  const times = given.short ? scenario.short : scenario.long;
  await scenario.disturb({ family, nodes, cluster, proxy, times, marks, whenOpen: tabs.whenOpen });
  await pause(SETTLE);
  if (!await family.stop(load.member, 'SIGTERM', 40_000)) throw new Error('the load did not end');
  await tabs.finish();
  await proxy.end();
  const records = jsonLines(load.out);
  const journals = await cluster.journals();
  const logged = proxy.attempts();
  await cluster.stop();
  return {
    records, journals, journaled: cluster.journaled, logged, marks, times, expected: load.said('sent'), late: load.said('latest'),
    counts: judge({ records, journals, logged }), tabs: judgeTabs(jsonLines(tabs.out), marks.begin),
  };
}

const verdict = ({ must, holds }) => (must === '' ? '' : holds ? 'yes' : 'NO');

function print(kind, scenario, found, rows) {
  const sent = `${found.records.length} requests at ${rate}/s, ${tunnels} tunnels, three ${given.real ? 'nodes of NocoBase' : 'nodes'}`;
  console.log(`\n${scenario.title}; ${kind}; ${sent}\n`);
  console.log(table([[kind, 'seen', 'must be', 'holds'], ...rows.map((row) => [row.what, row.seen, row.must, verdict(row)])]));
  console.log('');
  for (const line of failures(found)) console.log(line);
  console.log(`the load was never more than ${found.late} ms behind its schedule`);
}

/** One scenario with one proxy; how much of what must hold did not. */
async function play(family, kind, name, directory, real) {
  const scenario = SCENARIOS[name];
  family.directory = path.join(directory, `${kind}-${name}`);
  fs.mkdirSync(family.directory);
  try {
    const found = await facts(family, kind, scenario, real);
    const rows = [...requestRows(found), ...scenario.rows(found)];
    print(kind, scenario, found, rows);
    return rows.map(({ what, seen, must, holds }) => ({ kind, scenario: name, what, seen, must, holds }));
  } finally {
    await family.clear();
  }
}

function chosen(list, known) {
  const names = list ? list.split(',') : known;
  const unknown = names.find((name) => !known.includes(name));
  if (unknown) throw new Error(`no such thing: ${unknown}\n${USAGE}`);
  return names;
}

async function main() {
  const names = chosen(given.only, given.real ? REAL : Object.keys(SCENARIOS));
  const kinds = chosen(given.proxy, ['cobalance', 'nginx', 'haproxy']);
  const directory = workDirectory('restart');
  console.log(`evidence in ${directory}`);
  const family = new Family(directory);
  const real = given.real ? await startReal(new Family(path.join(directory))) : null;
  const rows = [];
  for (const name of names) {
    const able = SCENARIOS[name].proxies || kinds;
    for (const kind of kinds.filter((one) => able.includes(one))) rows.push(...await play(family, kind, name, directory, real));
  }
  if (real) await real.end();
  if (given.json) fs.writeFileSync(given.json, `${JSON.stringify({ rate, tunnels, rows }, null, 2)}\n`);
  const broken = rows.filter(({ kind, holds }) => kind === 'cobalance' && holds === false);
  console.log('');
  for (const { scenario, what, seen, must } of broken) console.log(`DOES NOT HOLD: ${scenario}: ${what}: ${seen}, must be ${must}`);
  console.log(broken.length ? 'restart: failed' : 'restart: passed');
  return broken.length ? 1 : 0;
}

run(main);
