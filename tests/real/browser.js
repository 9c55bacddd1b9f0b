// A person at a browser: headless Chromium that signs in, keeps that page and its `/ws` open, uploads
// and downloads, walks through other pages in a second tab, and takes note of every request that
// failed and of every WebSocket of the page that stays.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { clock, pause, until } = require('../rig/rig.js');
const { TOOLS } = require('./install.js');

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
];
const PAGE_LIMIT = 60_000;
/** The head of NocoBase's admin pages: it is there when the page has loaded what it needs. */
const ADMIN = '[data-testid=user-center-button]';
const PAGES = ['/admin/settings/system-settings', '/admin', '/admin/settings/plugin-manager'];

class Browser {
  /** `shots` is the directory for screenshots; `flags` are more of Chromium's. */
  static async open(base, shots, flags = []) {
    const { chromium } = require(path.join(TOOLS, 'node_modules', 'playwright-core'));
    const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'cobalance-chromium-'));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: '/usr/bin/chromium', headless: true, viewport: { width: 1280, height: 800 }, args: [...FLAGS, ...flags],
    });
    const browser = new Browser();
    Object.assign(browser, { base, shots, profile, context, page: context.pages()[0] || await context.newPage() });
    browser.seen = { requests: 0, failed: [], sockets: [], protocols: {} };
    await browser.watchSockets(await browser.watch(browser.page));
    return browser;
  }

  /** Counts by the browser's own protocol, whose session it gives. */
  async watch(page) {
    const session = await this.context.newCDPSession(page);
    await session.send('Network.enable');
    const addresses = new Map();
    session.on('Network.requestWillBeSent', ({ requestId, request }) => {
      this.seen.requests += 1;
      addresses.set(requestId, `${request.method} ${request.url.replace(this.base, '').slice(0, 100)}`);
    });
    session.on('Network.responseReceived', ({ requestId, response }) => {
      this.seen.protocols[response.protocol] = (this.seen.protocols[response.protocol] || 0) + 1;
      // 401 is how NocoBase tells a page that nobody is signed in yet.
      if (response.status >= 400 && response.status !== 401) this.note(`${response.status} ${addresses.get(requestId)}`);
    });
    session.on('Network.loadingFailed', ({ requestId, errorText, canceled }) => {
      // A page that is left cancels what it was waiting for.
      if (!canceled && errorText !== 'net::ERR_ABORTED') this.note(`${errorText} ${addresses.get(requestId)}`);
    });
    return session;
  }

  watchSockets(session) {
    const sockets = new Map();
    session.on('Network.webSocketCreated', ({ requestId, url }) => {
      sockets.set(requestId, { url, created: clock() });
      this.seen.sockets.push(sockets.get(requestId));
    });
    session.on('Network.webSocketHandshakeResponseReceived', ({ requestId, response }) => {
      Object.assign(sockets.get(requestId), { status: response.status, opened: clock() });
    });
    session.on('Network.webSocketClosed', ({ requestId }) => Object.assign(sockets.get(requestId), { closed: clock() }));
  }

  note(what) {
    this.seen.failed.push({ at: clock(), what });
  }

  shoot(name) {
    return this.page.screenshot({ path: path.join(this.shots, `${name}.png`) });
  }

  /** Is the `/ws` of the page that stays open now? */
  connected() {
    // 200 is how a WebSocket begins in a stream of HTTP/2 (RFC 8441).
    return this.seen.sockets.some((socket) => [101, 200].includes(socket.status) && !socket.closed);
  }

  async signIn({ account, password }) {
    await this.page.goto(this.base, { waitUntil: 'load', timeout: PAGE_LIMIT });
    await this.page.waitForSelector('input[type=password]', { timeout: PAGE_LIMIT });
    await this.shoot('1-sign-in');
    await this.page.locator('input').first().fill(account);
    await this.page.fill('input[type=password]', password);
    await this.page.click('button[type=submit], button.ant-btn-primary');
    await this.page.waitForURL(/\/admin/, { timeout: 20_000 });
    await this.untilUsable(this.page);
    await this.shoot('2-admin');
  }

  /** Loads the admin page in a tab of its own until it can be used, and keeps a picture of it. */
  async visitAdmin(name) {
    const tab = await this.context.newPage();
    try {
      await this.watch(tab);
      await this.loadAdmin(tab);
      await tab.screenshot({ path: path.join(this.shots, `${name}.png`) });
    } finally {
      await tab.close();
    }
  }

  /** Loads the admin page again in the tab that stayed. */
  async loadAgain(name) {
    await this.loadAdmin(this.page);
    await this.shoot(name);
  }

  async loadAdmin(page) {
    await page.goto(`${this.base}/admin`, { waitUntil: 'load', timeout: PAGE_LIMIT });
    await this.untilUsable(page);
  }

  async untilUsable(page) {
    await page.waitForSelector(ADMIN, { timeout: PAGE_LIMIT });
    await page.waitForLoadState('networkidle', { timeout: PAGE_LIMIT });
  }

  waitConnected() {
    return until('/ws to be open', 15_000, () => this.connected());
  }

  /**
   * Uploads `size` bytes as an attachment and downloads them again, in the page and with its token.
   * The hashes are compared there.
   */
  async roundTrip(size) {
    return this.page.evaluate(async (length) => {
      const bytes = new Uint8Array(length);
      for (let i = 0; i < length; i += 65536) crypto.getRandomValues(bytes.subarray(i, Math.min(length, i + 65536)));
      const hash = async (buffer) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', buffer))]
        .map((byte) => byte.toString(16).padStart(2, '0')).join('');
      const headers = { Authorization: `Bearer ${localStorage.getItem('NOCOBASE_TOKEN')}`, 'X-Authenticator': 'basic' };
      const form = new FormData();
      form.append('file', new Blob([bytes]), 'drill.bin');
      const upload = await fetch('/api/attachments:create', { method: 'POST', headers, body: form });
      if (upload.status !== 200) return { upload: upload.status };
      const { url } = (await upload.json()).data;
      const download = await fetch(url, { headers });
      const received = await download.arrayBuffer();
      return {
        upload: upload.status, download: download.status, url, bytes: received.byteLength,
        sent: await hash(bytes), received: await hash(received),
      };
    }, size);
  }

  /** Visits page after page in a second tab until `over()`; what does not load is noted. */
  async wander(over) {
    const tab = await this.context.newPage();
    await this.watch(tab);
    let visits = 0;
    while (!over()) {
      const target = PAGES[visits % PAGES.length];
      await tab.goto(this.base + target, { waitUntil: 'load', timeout: PAGE_LIMIT })
        .catch((error) => this.note(`visit of ${target}: ${error.message.split('\n')[0]}`));
      visits += 1;
      await pause(3000);
    }
    await tab.close();
    return visits;
  }

  async close() {
    await this.context.close();
    fs.rmSync(this.profile, { recursive: true, force: true });
  }
}

module.exports = { Browser };
