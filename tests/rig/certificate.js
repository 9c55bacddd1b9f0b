// A key and a certificate for 127.0.0.1 and localhost that one run alone trusts.
'use strict';

const { execFileSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

/** `{ chain, key, pin, table }` in `directory`: two PEM files, what Chromium calls the key, and TOML. */
function certificate(directory, name = 'edge') {
  const [chain, key] = ['chain.pem', 'key.pem'].map((file) => path.join(directory, file));
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-keyout', key, '-out', chain,
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost',
  ], { stdio: 'ignore' });
  const { publicKey } = new crypto.X509Certificate(fs.readFileSync(chain));
  const pin = crypto.createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
  return { chain, key, pin, table: `[[certificate]]\nname = "${name}"\nchain = "${chain}"\nkey = "${key}"\n` };
}

module.exports = { certificate };
