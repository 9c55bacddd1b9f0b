// Starts a NocoBase node in this very process, without the yarn, shell and pm2 around it, so that
// a signal reaches the node and its process id is the one we know. The working directory is the
// application's.
'use strict';

const path = require('node:path');

const modules = path.join(process.cwd(), 'node_modules', '@nocobase');
require(path.join(modules, 'cli-v1', 'src', 'util')).initEnv();
process.env.APP_PACKAGE_ROOT = path.join(modules, 'app');
const server = path.join(process.env.APP_PACKAGE_ROOT, 'lib', 'index.js');
process.argv = [process.argv[0], server, 'start'];
require(server);
