// The scenarios by name: each is a file of its own, and one line here. What such a file exports:
//
// - `title`, for its table;
// - `long` and `short`, its times in ms and its counts, as `world.times` and `facts.times`; the short ones are
//   CI's, where a machine may be busy: limits on time are generous there;
// - `disturb(world)`: does what it is about. `world` is `{ family, nodes, cluster, proxy, times, marks,
//   whenOpen(limit) }`; `marks` are for `rows`, `cluster` starts, ends and commands nodes (`standins.js`);
// - `rows(facts)`: lines of its table, beyond those that every scenario has (`verdict.js`);
// - `proxies`, if not all can do it: those that can;
// - `real: true`, if it can be done to real nodes as well;
// - `node`, if the stand-ins need more arguments;
// - `config`, if cobalance needs more than its defaults: `{ server, listener, upstream }`, lines of those tables.
//
// A proxy whose process is another one at the end replaces `world.proxy.end`, which ends it.
'use strict';

module.exports = {
  rolling: require('./rolling.js'),
  kill: require('./kill.js'),
  stop: require('./stop.js'),
  down: require('./down.js'),
  commanding: require('./commanding.js'),
  reload: require('./reload.js'),
  upgrade: require('./upgrade.js'),
  upload: require('./upload.js'),
};
