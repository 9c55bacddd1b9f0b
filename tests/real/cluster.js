// A NocoBase cluster on loopback: one PostgreSQL, one storage directory, as many nodes as wanted.
// The commercial Redis adapters are not part of it, so nodes do not tell each other of changes:
// what the drill needs in the database is made before the second node starts.
'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { call, freePorts, statusOf, until } = require('../rig/rig.js');
const { APP, DATA, LAB, install, postgresProgram, postgresUser, say, step, toolPath } = require('./install.js');

const ACCOUNT = { account: 'admin@nocobase.com', password: 'admin123' };
const COLLECTION = 'drill_records';
const START_LIMIT = 180_000; // 12 to 16 s on a quiet machine with two cores
const DATABASE_FLAGS = { listen_addresses: '127.0.0.1', max_connections: 200, unix_socket_directories: '' };

class Cluster {
  constructor(family, { size = 3, nginx = false } = {}) {
    Object.assign(this, { family, size, nginx, nodes: [] });
  }

  /** Installs what is missing, then starts the database and the nodes. */
  async start() {
    install({ nginx: this.nginx });
    const [databasePort, ...ports] = await freePorts(1 + this.size);
    this.databasePort = databasePort;
    this.nodes = ports.map((port, i) => ({ name: `node${i + 1}`, port }));
    await this.startDatabase();
    this.installTables();
    const [first, ...others] = this.nodes;
    await this.startNode(first);
    await this.makeCollection(first);
    await Promise.all(others.map((node) => this.startNode(node)));
  }

  async startDatabase() {
    const flags = Object.entries({ ...DATABASE_FLAGS, port: this.databasePort }).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    // SIGINT ends PostgreSQL at once and in order, SIGTERM only when its last client has left.
    this.database = this.family.start('postgres', postgresProgram('postgres'), ['-D', DATA, ...flags],
      { ...postgresUser(), cwd: path.dirname(DATA), last: 'SIGINT' });
    await until('PostgreSQL to answer', 60_000, () => {
      if (!this.database.running) throw new Error(`PostgreSQL ended: see ${this.family.directory}/postgres.log`);
      try { return this.query('select 1', 'postgres') === '1'; } catch { return false; }
    });
  }

  /** The answer of the database as text: rows by line, columns by `|`. */
  query(sql, database = 'nocobase') {
    return execFileSync(postgresProgram('psql'), [
      '-h', '127.0.0.1', '-p', `${this.databasePort}`, '-U', 'postgres', '-d', database, '-tAc', sql,
    ], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
  }

  installTables() {
    if (!this.query("select 1 from pg_roles where rolname = 'nocobase'", 'postgres')) {
      this.query("create role nocobase login password 'nocobase'", 'postgres');
    }
    if (!this.query("select 1 from pg_database where datname = 'nocobase'", 'postgres')) {
      this.query('create database nocobase owner nocobase', 'postgres');
    }
    if (this.query(`select to_regclass('public."applicationVersion"')`)) return;
    step('nocobase install', 'yarn', ['-s', 'nocobase', 'install'], { cwd: APP, env: { ...toolPath(), DB_PORT: `${this.databasePort}` } });
    if (!this.query(`select to_regclass('public."applicationVersion"')`)) throw new Error('NocoBase made no tables');
  }

  /** Starts a node and waits until it serves. The paths differ per node: a start deletes its own. */
  async startNode(node) {
    const run = path.join(LAB, 'run');
    fs.mkdirSync(run, { recursive: true });
    const environment = {
      ...process.env, ...toolPath(), APP_ENV: 'production', APP_HOST: '127.0.0.1', APP_PORT: `${node.port}`,
      DB_PORT: `${this.databasePort}`, SOCKET_PATH: path.join(run, `${node.name}.sock`), PM2_HOME: path.join(run, `pm2-${node.name}`),
      LOGGER_BASE_PATH: path.join(LAB, 'logs', node.name), NODE_PATH: path.join(APP, 'node_modules'), NODE_OPTIONS: '--preserve-symlinks',
    };
    fs.rmSync(environment.SOCKET_PATH, { force: true });
    const begin = Date.now();
    node.member = this.family.start(node.name, process.execPath, [path.join(__dirname, 'boot.js')], { cwd: APP, env: environment });
    await until(`${node.name} to serve`, START_LIMIT, () => {
      if (!node.member.running) throw new Error(`${node.name} ended: see ${this.family.directory}/${node.name}.log`);
      return this.serves(node);
    });
    say(`${node.name} serves on 127.0.0.1:${node.port} after ${((Date.now() - begin) / 1000).toFixed(1)} s`);
  }

  serves(node) {
    return statusOf(`http://127.0.0.1:${node.port}/api/__health_check`).then((status) => status === 200);
  }

  /** The collection that the load writes to; a fresh process is needed for others to know it. */
  async makeCollection(node) {
    const base = `http://127.0.0.1:${node.port}`;
    const headers = await signIn(base);
    const fields = [
      { name: 'id', type: 'bigInt', interface: 'integer', autoIncrement: true, primaryKey: true, allowNull: false },
      { name: 'rid', type: 'string', interface: 'input' },
    ];
    const existing = await call(`${base}/api/${COLLECTION}:list`, { headers });
    if (existing.status === 200) return;
    const answer = await call(`${base}/api/collections:create`, {
      method: 'POST', headers, timeout: 60_000,
      body: JSON.stringify({ name: COLLECTION, title: 'Drill', autoGenId: true, createdAt: true, fields }),
    });
    if (answer.status !== 200) throw new Error(`no collection: ${answer.status} ${answer.body.slice(0, 300)}`);
    say(`made the collection ${COLLECTION}`);
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.member && this.family.stop(node.member, 'SIGKILL')));
    if (this.database) await this.family.stop(this.database, 'SIGINT');
  }
}

/** Signs in through `base` and gives the headers of a signed-in caller. */
async function signIn(base) {
  const answer = await call(`${base}/api/auth:signIn`, {
    method: 'POST', timeout: 30_000, body: JSON.stringify(ACCOUNT),
    headers: { 'X-Authenticator': 'basic', 'Content-Type': 'application/json' },
  });
  if (answer.status !== 200) throw new Error(`no sign-in: ${answer.status} ${answer.body.slice(0, 300)}`);
  const { token } = JSON.parse(answer.body).data;
  return { Authorization: `Bearer ${token}`, 'X-Authenticator': 'basic', 'Content-Type': 'application/json' };
}

module.exports = { ACCOUNT, COLLECTION, Cluster, signIn };
