// The two proxies of the drills behind one shape:
// `{ kind, port, member, file, reload(n), status(), metrics(), attempts() }`.
//
// `attempts()` reads the proxy's access log and gives, for each request, what was sent to which
// node: `{ id, target, status, reason, attempts: [{ node, sent, result, reused }] }`.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { REPOSITORY, call, freePorts, jsonLines, replaceFile, statusOf, until } = require('./rig.js');

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
const drillConfiguration = ({ port, admin, nodes, weight, log, extra }) => `[[listener]]
bind = "127.0.0.1:${port}"

[upstream.nocobase]
${extra}
nodes = [
${nodes.map((node, i) => `  { name = "${node.name}", address = "127.0.0.1:${node.port}", weight = ${i === nodes.length - 1 ? weight : 1} },`).join('\n')}
]

[admin]
bind = "127.0.0.1:${admin}"

[access_log]
path = "${log}"
`;

/**
 * Starts cobalance in front of `nodes` (`[{ name, port }]`). `extra` are lines for the upstream's
 * table; `reload(n)` rewrites the file with the weight of the last node changed and leaves finding
 * it to the process. `minimal` writes the five-line file and nothing else: the admin address is the
 * default one, and the access log goes to stdout.
 */
async function startCobalance(family, nodes, { name = 'cobalance', extra = '', minimal = false } = {}) {
  const [port, free] = await freePorts(2);
  const admin = minimal ? DEFAULT_ADMIN : free;
  const file = path.join(family.directory, `${name}.toml`);
  const log = path.join(family.directory, minimal ? `${name}.log` : `${name}-access.log`);
  const text = (weight) => (minimal ? fiveLines(port, nodes) : drillConfiguration({ port, admin, nodes, weight, log, extra }));
  const base = `http://127.0.0.1:${admin}`;
  if (await statusOf(`${base}/livez`)) throw new Error(`something already answers on ${base}`);
  fs.writeFileSync(file, text(1));
  const member = family.start(name, cobalanceBinary(), ['run', '--config', file]);
  await until('cobalance to be ready', 20_000, () => {
    if (!member.running) throw new Error(`cobalance ended: see ${family.directory}/${name}.log`);
    return statusOf(`${base}/readyz`).then((status) => status === 200);
  });
  const status = async () => JSON.parse((await call(`${base}/api/v1/status`)).body);
  await until('every node to be up', 20_000, async () => (await status()).upstreams[0].nodes.every((node) => node.state === 'up'));
  return {
    kind: 'cobalance', port, member, file, status,
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
 * an access log. `pooled` adds what nginx's own documentation says for keep-alive to the nodes.
 */
async function startNginx(family, nodes, { name = 'nginx', pooled = false, access = true } = {}) {
  const [port] = await freePorts(1);
  const prefix = path.join(family.directory, name);
  fs.mkdirSync(prefix, { recursive: true });
  const file = path.join(prefix, 'nginx.conf');
  const log = path.join(prefix, 'access.log');
  const text = (weight) => nginxConfiguration({ port, nodes, weight, prefix, pooled, log: access ? log : '' });
  fs.writeFileSync(file, text(1));
  const member = family.start(name, 'nginx', ['-p', prefix, '-c', file, '-e', `${prefix}/error.log`],
    { last: 'SIGTERM' });
  await until('nginx to answer', 10_000, () => {
    if (!member.running) throw new Error(`nginx ended: see ${prefix}/error.log and ${name}.log`);
    return statusOf(`http://127.0.0.1:${port}/api/__health_check`).then((status) => status === 200);
  });
  return {
    kind: 'nginx', port, member, file,
    reload: (n) => { replaceFile(file, text(1 + n % 2)); member.child.kill('SIGHUP'); },
    status: async () => null,
    metrics: async () => '',
    attempts: () => jsonLines(log).map(fromNginx(nodes)),
  };
}

function nginxConfiguration({ port, nodes, weight, prefix, pooled, log }) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `daemon off;
pid ${prefix}/nginx.pid;
${process.getuid() === 0 ? 'user root;' : ''}
worker_processes auto;
events { worker_connections 4096; }
http {
${temporary.map((kind) => `    ${kind}_temp_path ${prefix}/${kind};`).join('\n')}
    log_format drill escape=json '{"target":"$request_uri","status":$status,"node":"$upstream_addr",'
        '"result":"$upstream_status","sent":"$upstream_bytes_sent"}';
    access_log ${log ? `${log} drill` : 'off'};
    upstream myapp {
${nodes.map((node, i) => `        server 127.0.0.1:${node.port}${i === nodes.length - 1 && weight > 1 ? ` weight=${weight}` : ''};`).join('\n')}
${pooled ? '        keepalive 256;' : ''}
    }
    server {
        listen 127.0.0.1:${port};
        location / {
            proxy_pass http://myapp;
${pooled ? '            proxy_http_version 1.1;\n            proxy_set_header Connection "";\n            proxy_next_upstream off;' : ''}
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

const startProxy = (kind, ...rest) => {
  if (kind === 'cobalance') return startCobalance(...rest);
  if (kind === 'nginx') return startNginx(...rest);
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

module.exports = { cobalanceBinary, fromCobalance, fromNginx, idOf, startProxy, sumBy };
