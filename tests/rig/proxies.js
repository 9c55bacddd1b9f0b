// The proxies of the drills behind one shape:
// `{ kind, port, member, file, reload(n), drain(node), ready(node), isBack(node), status(), metrics(),
// attempts(), end() }`.
//
// `drain` lets a node be emptied as far as the proxy can and returns when that is done; `ready` gives it
// back. Both take nothing for granted: they fail if the proxy says no. `isBack` waits until requests go to a
// node again, where the proxy can say so.
//
// `attempts()` reads the proxy's access log and gives, for each request, what was sent to which
// node: `{ id, target, status, reason, attempts: [{ node, sent, result, reused }] }`.
'use strict';

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');
const { REPOSITORY, call, freePorts, jsonLines, pause, replaceFile, statusOf, until } = require('./rig.js');

/** The binary under test: `COBALANCE`, else what cargo built last, release before debug. */
function cobalanceBinary() {
  const target = process.env.CARGO_TARGET_DIR || path.join(REPOSITORY, 'target');
  const places = process.env.COBALANCE
    ? [process.env.COBALANCE]
    : ['release', 'debug'].map((profile) => path.join(target, profile, 'cobalance'));
  const found = places.find((place) => fs.existsSync(place));
  if (!found) throw new Error(`no cobalance at ${places.join(' or ')}: cargo build --release`);
  return found;
}

/** The identity of a drill's request: its query holds it, whatever else a log line holds. */
const idOf = (target) => (/[?&]id=([\w-]+)/.exec(target || '') || [])[1];

const DEFAULT_ADMIN = 9901;

/** Everything has a default that suits a NocoBase cluster: this is all an operator must write. */
const fiveLines = (port, nodes) => `[[listener]]
bind = "127.0.0.1:${port}"

[upstream.nocobase]
nodes = [${nodes.map((node) => `"127.0.0.1:${node.port}"`).join(', ')}]
`;

/** With names, a weight for the last node, free ports and a log file, as the drills need them. */
const drillConfiguration = ({ port, admin, nodes, weight, log, more }) => `${more.server ? `[server]\n${more.server}\n\n` : ''}[[listener]]
bind = "127.0.0.1:${port}"
${more.listener || ''}

[upstream.nocobase]
${more.upstream || ''}
nodes = [
${nodes.map((node, i) => `  { name = "${node.name}", address = "127.0.0.1:${node.port}", weight = ${i === nodes.length - 1 ? weight : 1} },`).join('\n')}
]

[admin]
bind = "127.0.0.1:${admin}"

[access_log]
path = "${log}"

${more.tables || ''}`;

/**
 * Starts cobalance in front of `nodes` (`[{ name, port }]`). `more` are lines for tables, `{ server,
 * listener, upstream }`, and whole `tables`; `reload(n)` rewrites the file with the weight of the last node changed and leaves finding
 * it to the process. `minimal` writes the five-line file and nothing else: the admin address is the
 * default one, and the access log goes to stdout.
 */
async function startCobalance(family, nodes, { name = 'cobalance', more = {}, minimal = false } = {}) {
  const [port, free] = await freePorts(2);
  const admin = minimal ? DEFAULT_ADMIN : free;
  const file = path.join(family.directory, `${name}.toml`);
  const log = path.join(family.directory, minimal ? `${name}.log` : `${name}-access.log`);
  const text = (weight) => (minimal ? fiveLines(port, nodes) : drillConfiguration({ port, admin, nodes, weight, log, more }));
  const base = `http://127.0.0.1:${admin}`;
  if (await statusOf(`${base}/livez`)) throw new Error(`something already answers on ${base}`);
  fs.writeFileSync(file, text(1));
  const member = family.start(name, cobalanceBinary(), ['run', '--config', file]);
  await until('cobalance to be ready', 20_000, () => {
    if (!member.running) throw new Error(`cobalance ended: see ${family.directory}/${name}.log`);
    return statusOf(`${base}/readyz`).then((status) => status === 200);
  });
  const status = async () => JSON.parse((await call(`${base}/api/v1/status`)).body);
  const say = (...words) => promisify(execFile)(cobalanceBinary(), [...words, '--admin', `127.0.0.1:${admin}`]);
  const isUp = (node) => until(`${node.name} to be up`, 30_000, async () => (await status()).upstreams[0].nodes
    .some(({ name: known, state }) => known === node.name && state === 'up'));
  await until('every node to be up', 20_000, async () => (await status()).upstreams[0].nodes.every((node) => node.state === 'up'));
  return {
    kind: 'cobalance', port, member, file, status, say,
    drain: (node, window = 10) => say('drain', node.name, '--wait', '--window', `${window}s`),
    ready: (node) => say('ready', node.name).then(() => isUp(node)),
    isBack: isUp,
    end: () => family.stop(member),
    reload: (n) => replaceFile(file, text(1 + n % 2)),
    metrics: async () => (await call(`${base}/metrics`)).body,
    attempts: () => jsonLines(log).filter((line) => line.attempts).map(fromCobalance(nodes)),
  };
}

/** One line of cobalance's access log in the common shape; a node may be told by its address. */
const fromCobalance = (nodes) => (line) => ({
  id: idOf(line.path), target: line.path, status: line.status, reason: line.reason || '',
  attempts: (line.attempts || []).map((attempt) => ({
    node: (nodes.find((node) => `127.0.0.1:${node.port}` === attempt.node) || { name: attempt.node }).name,
    sent: attempt.sent, result: attempt.result, reused: attempt.reused,
  })),
});

/**
 * Starts nginx with the `upstream` block of NocoBase's cluster documentation and nothing else but
 * an access log. `pooled` adds what nginx's own documentation says for keep-alive to the nodes;
 * `tuned` is the best that it can do for restarts: also retries, quick verdicts, and tunnels.
 */
async function startNginx(family, nodes, { name = 'nginx', pooled = false, tuned = false, access = true } = {}) {
  const [port] = await freePorts(1);
  const prefix = path.join(family.directory, name);
  fs.mkdirSync(prefix, { recursive: true });
  const file = path.join(prefix, 'nginx.conf');
  const log = path.join(prefix, 'access.log');
  const text = (weight, drained) => nginxConfiguration({ port, nodes, weight, drained, prefix, pooled, tuned, log: access ? log : '' });
  fs.writeFileSync(file, text(1));
  const member = family.start(name, 'nginx', ['-p', prefix, '-c', file, '-e', `${prefix}/error.log`],
    { last: 'SIGTERM' });
  await until('nginx to answer', 10_000, () => {
    if (!member.running) throw new Error(`nginx ended: see ${prefix}/error.log and ${name}.log`);
    return statusOf(`http://127.0.0.1:${port}/api/__health_check`).then((status) => status === 200);
  });
  const use = (weight, drained) => { replaceFile(file, text(weight, drained)); member.child.kill('SIGHUP'); };
  return {
    kind: 'nginx', port, member, file,
    reload: (n) => use(1 + n % 2),
    drain: async (node) => { use(1, node); await pause(DRAINED); },
    ready: async () => { use(1); await pause(DRAINED); },
    isBack: async () => {},
    end: () => family.stop(member, 'SIGTERM', 5000),
    status: async () => null,
    metrics: async () => '',
    attempts: () => jsonLines(log).map(fromNginx(nodes)),
  };
}

/** ms that a script gives a proxy which cannot say when what runs at a node has ended. */
const DRAINED = 1000;

const NGINX_POOLED = `
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;`;

/** POSTs that were sent are not repeated: that is nginx's default, and what must be. */
const NGINX_TUNED = `
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection $kept;
            proxy_set_header Upgrade $http_upgrade;
            proxy_connect_timeout 2s;
            proxy_read_timeout 600s;
            proxy_next_upstream error timeout http_502 http_503;`;

function nginxConfiguration({ port, nodes, weight, drained, prefix, pooled, tuned, log }) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  const server = (node, i) => `        server 127.0.0.1:${node.port}${i === nodes.length - 1 && weight > 1 ? ` weight=${weight}` : ''}`
    + `${tuned ? ' max_fails=1 fail_timeout=2s' : ''}${node === drained ? ' down' : ''};`;
  return `daemon off;
pid ${prefix}/nginx.pid;
${process.getuid() === 0 ? 'user root;' : ''}
worker_processes auto;
worker_rlimit_nofile ${tuned ? 16384 : 8192};
events { worker_connections ${tuned ? 8192 : 4096}; }
http {
${temporary.map((kind) => `    ${kind}_temp_path ${prefix}/${kind};`).join('\n')}
    log_format drill escape=json '{"target":"$request_uri","status":$status,"node":"$upstream_addr",'
        '"result":"$upstream_status","sent":"$upstream_bytes_sent"}';
    access_log ${log ? `${log} drill` : 'off'};
    map $http_upgrade $kept { "" ""; default upgrade; }
    upstream myapp {
${tuned ? '        zone myapp 64k;\n' : ''}${nodes.map(server).join('\n')}
${pooled || tuned ? '        keepalive 256;' : ''}
    }
    server {
        listen 127.0.0.1:${port};
        location / {
            proxy_pass http://myapp;${pooled ? NGINX_POOLED : ''}${tuned ? NGINX_TUNED : ''}
        }
    }
}
`;
}

/** nginx lists the values of its attempts with commas, and with a colon after a redirect. */
const fromNginx = (nodes) => (line) => {
  const parts = (text) => String(text).split(/[,:] +/);
  const [results, sent] = [parts(line.result), parts(line.sent)];
  return {
    id: idOf(line.target), target: line.target, status: line.status, reason: '',
    attempts: parts(line.node).filter((address) => address !== '' && address !== 'myapp').map((address, i) => ({
      node: (nodes.find((node) => `127.0.0.1:${node.port}` === address) || { name: address }).name,
      sent: Number(sent[i]) || 0, result: results[i], reused: undefined,
    })),
  };
};

/**
 * Starts HAProxy with what it can do for restarts: checks as cobalance makes them, retries on another
 * node for connections that failed and, but for POSTs, for answers that did not come, slow start,
 * and commands on its socket. It logs to its standard output, in a shape of ours.
 */
async function startHaproxy(family, nodes, { name = 'haproxy' } = {}) {
  const [port] = await freePorts(1);
  // A socket's path has at most 108 bytes: a directory of its own, which is short.
  const socket = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'ha-')), 's');
  const file = path.join(family.directory, `${name}.cfg`);
  const text = (weight) => haproxyConfiguration({ port, socket, nodes, weight });
  fs.writeFileSync(file, text(1));
  const member = family.start(name, 'haproxy', ['-W', '-db', '-f', file], { last: 'SIGTERM' });
  await until('HAProxy to answer', 10_000, () => {
    if (!member.running) throw new Error(`HAProxy ended: see ${family.directory}/${name}.log`);
    return statusOf(`http://127.0.0.1:${port}/api/__health_check`).then((status) => status === 200);
  });
  const say = (words) => haproxySays(socket, words);
  const isUp = (node) => until(`${node.name} to be up`, 30_000, async () => new RegExp(`,${node.name},.*,UP,`).test(await say('show stat')));
  return {
    kind: 'haproxy', port, member, file,
    reload: (n) => { replaceFile(file, text(1 + n % 2)); member.child.kill('SIGUSR2'); },
    drain: async (node) => {
      await say(`set server nodes/${node.name} state drain`);
      await pause(DRAINED);
      await say(`shutdown sessions server nodes/${node.name}`);
    },
    ready: (node) => say(`set server nodes/${node.name} state ready`).then(() => isUp(node)),
    isBack: isUp,
    end: () => family.stop(member, 'SIGTERM', 5000),
    status: async () => null,
    metrics: async () => '',
    attempts: () => jsonLines(path.join(family.directory, `${name}.log`)).filter(({ target }) => target).map(fromHaproxy),
  };
}

/** One command on HAProxy's socket; the answer. */
function haproxySays(socket, words) {
  return new Promise((resolve, reject) => {
    const parts = [];
    const stream = net.connect(socket, () => stream.write(`${words}\n`));
    stream.setTimeout(5000, () => stream.destroy(new Error(`no answer to ${words}`)));
    stream.on('data', (part) => parts.push(part));
    stream.on('error', reject);
    stream.on('end', () => resolve(Buffer.concat(parts).toString()));
  });
}

const haproxyConfiguration = ({ port, socket, nodes, weight }) => `global
    maxconn 6000
    stats socket ${socket} mode 600 level admin expose-fd listeners
    log stdout format raw local0 info
defaults
    mode http
    log global
    log-format '{"target":"%HU","status":%ST,"node":"%s","result":"%ts"}'
    timeout connect 2s
    timeout client 75s
    timeout server 600s
    timeout tunnel 900s
    timeout queue 10s
    http-reuse safe
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response 502 503
frontend public
    bind 127.0.0.1:${port}
    http-request disable-l7-retry if METH_POST
    default_backend nodes
backend nodes
    balance leastconn
    option httpchk GET /api/__health_check
    http-check expect string ok
    default-server check inter 2s fastinter 500ms rise 2 fall 3 slowstart 30s observe layer7 on-error fastinter on-marked-down shutdown-sessions
${nodes.map((node, i) => `    server ${node.name} 127.0.0.1:${node.port} weight ${i === nodes.length - 1 ? weight : 1}`).join('\n')}
`;

/** HAProxy logs the last node alone, and how the session ended: in `SC` nothing was sent to it. */
const fromHaproxy = ({ target, status, node, result }) => ({
  id: idOf(target), target, status, reason: '',
  attempts: node === '<NOSRV>' ? [] : [{ node, sent: result.startsWith('SC') ? 0 : 1, result, reused: undefined }],
});

const startProxy = (kind, ...rest) => {
  if (kind === 'cobalance') return startCobalance(...rest);
  if (kind === 'nginx') return startNginx(...rest);
  if (kind === 'haproxy') return startHaproxy(...rest);
  throw new Error(`no such proxy: ${kind}`);
};

/** Sums of a counter over all label sets, by the value of one label, from Prometheus text. */
function sumBy(text, metric, label) {
  const sums = {};
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${metric}{`)) continue;
    const value = (new RegExp(`[{,]${label}="([^"]*)"`).exec(line) || [])[1];
    sums[value] = (sums[value] || 0) + Number(line.slice(line.lastIndexOf(' ') + 1));
  }
  return sums;
}

module.exports = { cobalanceBinary, fromCobalance, fromHaproxy, fromNginx, idOf, startProxy, sumBy };
