// From nothing to an installed NocoBase: the packages from the npm registry, PostgreSQL, nginx and
// Chromium from Debian. Every step looks first, so that a second run costs nothing.
'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const VERSIONS = { 'create-nocobase-app': '2.2.15', yarn: '1.22.22', 'playwright-core': '1.64.1' };

/** Where everything is installed and written: `COBALANCE_LAB`, about 1.3 GB. */
const LAB = path.resolve(process.env.COBALANCE_LAB || path.join(os.tmpdir(), 'cobalance-nocobase'));
const APP = path.join(LAB, 'app');
const TOOLS = path.join(LAB, 'tools');
const DATA = path.join(LAB, 'postgres', 'data');

/** Downloads of browsers are of no use: Debian's Chromium is used. */
const QUIET = { PUPPETEER_SKIP_DOWNLOAD: '1', PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD: '1' };

const say = (text) => console.log(`${new Date().toISOString().slice(11, 19)}  ${text}`);

/** Debian keeps the server programs of PostgreSQL out of the path. */
function postgresProgram(name) {
  const root = '/usr/lib/postgresql';
  const versions = fs.existsSync(root) ? fs.readdirSync(root).sort((a, b) => b - a) : [];
  return versions.map((version) => path.join(root, version, 'bin', name)).find((file) => fs.existsSync(file));
}

/** `uid` and `gid` under which PostgreSQL runs: it refuses to be root. */
function postgresUser() {
  if (process.getuid() !== 0) return {};
  const number = (flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: number('-u'), gid: number('-g') };
}

/** Runs a command to its end with its output in a log file; the log is shown when it fails. */
function step(what, command, args, spawnOptions = {}) {
  const log = path.join(LAB, 'logs', `${what.replace(/\W+/g, '-')}.log`);
  const output = fs.openSync(log, 'w');
  const begin = Date.now();
  say(what);
  try {
    const environment = { ...process.env, ...QUIET, ...spawnOptions.env };
    execFileSync(command, args, { stdio: ['ignore', output, output], ...spawnOptions, env: environment });
  } catch (error) {
    throw new Error(`${what} failed (${log}):\n${fs.readFileSync(log, 'utf8').slice(-3000)}`, { cause: error });
  } finally {
    fs.closeSync(output);
  }
  say(`  took ${((Date.now() - begin) / 1000).toFixed(0)} s`);
}

/** Debian's packages that are missing. `RUNLEVEL=1` keeps their services from being started. */
function installDebian(programs) {
  const missing = Object.entries(programs).filter(([, present]) => !present()).map(([name]) => name);
  if (missing.length === 0) return;
  if (process.getuid() !== 0) throw new Error(`install these Debian packages first: ${missing.join(' ')}`);
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  step('apt-get update', 'apt-get', ['update', '-q'], { env });
  step('apt-get install', 'apt-get', ['install', '-y', '-q', '--no-install-recommends', ...missing], { env });
}

function installTools() {
  const wanted = Object.entries(VERSIONS).filter(([name, version]) => {
    const file = path.join(TOOLS, 'node_modules', name, 'package.json');
    return !fs.existsSync(file) || JSON.parse(fs.readFileSync(file)).version !== version;
  });
  if (wanted.length === 0) return;
  fs.mkdirSync(TOOLS, { recursive: true });
  const packages = Object.entries(VERSIONS).map(([name, version]) => `${name}@${version}`);
  step('npm install of the tools', 'npm', ['install', '--no-audit', '--no-fund', '--prefix', TOOLS, ...packages]);
}

/** With our own yarn first in the path: NocoBase's scripts call it. */
const toolPath = () => ({ PATH: `${path.join(TOOLS, 'node_modules', '.bin')}:${process.env.PATH}` });

/** Writes the application's skeleton and gets its dependencies. */
function installApplication() {
  const manifest = path.join(APP, 'package.json');
  const env = toolPath();
  if (!fs.existsSync(manifest)) {
    const settings = {
      APP_ENV: 'production', DB_HOST: '127.0.0.1', DB_DATABASE: 'nocobase', DB_USER: 'nocobase', DB_PASSWORD: 'nocobase', TZ: 'UTC',
    };
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-e', `${name}=${value}`]);
    step('create-nocobase-app', 'create-nocobase-app', ['app', '--skip-dev-dependencies', '-d', 'postgres', ...flags], { cwd: LAB, env });
  }
  if (fs.existsSync(path.join(APP, 'node_modules', '.yarn-integrity'))) return;
  // One dependency names `xlsx` by a web address; the registry's own release serves as well here.
  const description = JSON.parse(fs.readFileSync(manifest));
  description.resolutions = { ...description.resolutions, xlsx: '0.18.5' };
  fs.writeFileSync(manifest, `${JSON.stringify(description, null, 2)}\n`);
  // A package that only the separate `nb` tool uses asks for a newer Node.js: hence the engines.
  step('yarn install of NocoBase', 'yarn', [
    'install', '--production', '--ignore-engines', '--non-interactive', '--no-progress', '--network-timeout', '300000',
  ], { cwd: APP, env });
}

function installDatabase() {
  if (fs.existsSync(path.join(DATA, 'PG_VERSION'))) return;
  const parent = path.dirname(DATA);
  const user = postgresUser();
  fs.mkdirSync(parent, { recursive: true });
  if (user.uid !== undefined) fs.chownSync(parent, user.uid, user.gid);
  step('initdb', postgresProgram('initdb'), ['-D', DATA, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8'], { ...user, cwd: parent });
}

const onPath = (program) => process.env.PATH.split(':').some((place) => fs.existsSync(path.join(place, program)));

/** Everything but the tables of NocoBase, which need a running database: see `cluster.js`. */
function install({ nginx = false } = {}) {
  fs.mkdirSync(path.join(LAB, 'logs'), { recursive: true });
  fs.chmodSync(LAB, 0o755); // The database's user must reach its directory.
  installDebian({
    postgresql: () => postgresProgram('initdb'), chromium: () => onPath('chromium'), ...(nginx && { nginx: () => onPath('nginx') }),
  });
  installTools();
  installApplication();
  installDatabase();
}

module.exports = { APP, DATA, LAB, TOOLS, install, postgresProgram, postgresUser, say, step, toolPath };
