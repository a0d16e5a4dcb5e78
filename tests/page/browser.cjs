// Loads pages in headless Chromium and checks each: nothing on the console, no request but that for the page, no
// horizontal scrolling, no violation that axe-core finds.
//
//     node browser.cjs SCREENSHOTS NAME=URL...
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const WIDTHS = [390, 1280];
const SCHEMES = ['light', 'dark'];
const LONGEST_RUN_MS = 300_000;

/** The browser, over the pipe of the DevTools protocol: JSON messages that end with a NUL. */
class Browser {
  #last = 0;
  #waiting = new Map();
  #listeners = new Set();
  #rest = Buffer.alloc(0);

  constructor() {
    this.profile = fs.mkdtempSync(path.join(os.tmpdir(), 'wsmon-page-'));
    const flags = ['--headless', '--remote-debugging-pipe', '--disable-gpu', '--hide-scrollbars', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage',
      `--user-data-dir=${this.profile}`];
    // The sandbox refuses to run as root. The pages are our own.
    if (process.getuid() === 0) flags.push('--no-sandbox');
    this.process = spawn('chromium', flags, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] });
    this.errors = '';
    this.process.stderr.on('data', (data) => { this.errors += data; });
    this.ended = new Promise((resolve) => {
      this.process.on('error', (error) => { this.#fail(`cannot start chromium: ${error.message}`); resolve(); });
      this.process.on('exit', (code) => { this.#fail(`chromium ended (${code}):\n${this.errors}`); resolve(); });
    });
    this.process.stdio[3].on('error', () => {});
    this.process.stdio[4].on('data', (data) => this.#read(data));
  }

  /** The result of a command, to a page if there is a session. */
  send(method, params = {}, sessionId = undefined) {
    const id = ++this.#last;
    const response = new Promise((resolve, reject) => this.#waiting.set(id, { method, resolve, reject }));
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return response;
  }

  /** Calls `listener` for each event until the function that it returns is called. */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close() {
    await this.send('Browser.close').catch(() => {});
    await this.ended;
    fs.rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }

  #read(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    for (let end = this.#rest.indexOf(0); end >= 0; end = this.#rest.indexOf(0)) {
      const message = JSON.parse(this.#rest.subarray(0, end));
      this.#rest = this.#rest.subarray(end + 1);
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (!waiting) this.#listeners.forEach((listener) => listener(message));
      else if (message.error) waiting.reject(new Error(`${waiting.method}: ${message.error.message}`));
      else waiting.resolve(message.result);
    }
  }

  #fail(reason) {
    this.#waiting.forEach(({ reject }) => reject(new Error(reason)));
    this.#waiting.clear();
  }
}

/**
 * Runs in the page. axe-core does not measure the contrast of texts in an SVG, or scrolled out of sight. Theirs is that
 * with the nearest background, because no text of the page is in front of a drawing.
 */
async function judge() {
  const LEAST_CONTRAST = 4.5;
  const rgb = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [red, green, blue] = rgb(color).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const background = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return rgb(color)[3] === 0 ? background(element.parentElement) : color;
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const text = luminance(element.closest('svg') ? style.fill : style.color);
    const behind = luminance(background(element));
    return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
  };
  const results = await axe.run(document);
  const sentence = ({ id, nodes }) => `${id}, ${nodes.length} times: ${nodes[0].html.slice(0, 200)}`;
  const undecided = [];
  for (const { id, nodes } of results.incomplete) {
    const open = nodes.filter(({ target }) => (
      id !== 'color-contrast' || contrast(document.querySelector(target[0])) < LEAST_CONTRAST
    ));
    if (open.length) undecided.push(sentence({ id, nodes: open }));
  }
  return { violations: results.violations.map(sentence), undecided, passes: results.passes.length };
}

/** Loads one page and returns what is wrong with it. */
async function check(browser, { name, url }, width, scheme, screenshots) {
  const wrong = [];
  const requests = [];
  const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
  const send = (method, params) => browser.send(method, params, sessionId);
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await send('Runtime.evaluate', {
      expression, awaitPromise: true, returnByValue: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  const loaded = new Promise((resolve) => {
    const stop = browser.listen((event) => {
      if (event.sessionId !== sessionId || event.method !== 'Page.loadEventFired') return;
      stop();
      resolve();
    });
  });
  const stop = browser.listen((event) => {
    if (event.sessionId !== sessionId) return;
    const { method, params } = event;
    if (method === 'Log.entryAdded') wrong.push(`console: ${params.entry.text} ${params.entry.url ?? ''}`);
    if (method === 'Runtime.consoleAPICalled') wrong.push(`console: ${JSON.stringify(params.args)}`);
    if (method === 'Runtime.exceptionThrown') wrong.push(`exception: ${params.exceptionDetails.text}`);
    if (method === 'Network.requestWillBeSent') requests.push(params.request.url);
  });
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`);
  await send('Emulation.setDeviceMetricsOverride', {
    width, height: 844, deviceScaleFactor: 1, mobile: width < 600,
  });
  await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  await send('Page.navigate', { url });
  await loaded;
  const expected = JSON.stringify([url]);
  const sent = JSON.stringify(requests.filter((request) => !request.startsWith('data:')));
  if (sent !== expected) wrong.push(`requests: ${sent} instead of ${expected}`);
  // A 503 is an entry in the log. It is what the scene is about.
  if (name === 'starting') {
    const refusal = wrong.findIndex((line) => line.includes('status of 503'));
    if (refusal < 0) wrong.push('the response is not 503');
    else wrong.splice(refusal, 1);
  }
  const overflow = await evaluate('document.documentElement.scrollWidth - window.innerWidth');
  if (overflow > 0) wrong.push(`the page is ${overflow} pixels wider than the window`);
  const background = await evaluate('getComputedStyle(document.body).backgroundColor');
  const { data } = await send('Page.captureScreenshot', { captureBeyondViewport: true });
  fs.writeFileSync(path.join(screenshots, `${name}-${width}-${scheme}.png`), Buffer.from(data, 'base64'));
  // What axe-core itself does to the console is not the page's.
  stop();
  await evaluate(AXE);
  const { violations, undecided, passes } = await evaluate(`(${judge})()`);
  violations.forEach((violation) => wrong.push(`axe-core: ${violation}`));
  undecided.forEach((reason) => wrong.push(`axe-core cannot decide: ${reason}`));
  await browser.send('Target.closeTarget', { targetId });
  return { wrong, background, passes };
}

async function main() {
  const [screenshots, ...pages] = process.argv.slice(2);
  const scenes = pages.map((page) => {
    const end = page.indexOf('=');
    return { name: page.slice(0, end), url: page.slice(end + 1) };
  });
  const browser = new Browser();
  let failures = 0;
  try {
    const { product } = await browser.send('Browser.getVersion');
    console.log(`${product}, axe-core ${require('axe-core/package.json').version}`);
    for (const scene of scenes) {
      for (const width of WIDTHS) {
        const backgrounds = new Set();
        for (const scheme of SCHEMES) {
          const { wrong, background, passes } = await check(browser, scene, width, scheme, screenshots);
          backgrounds.add(background);
          failures += wrong.length;
          console.log(`${wrong.length ? 'FAILED' : 'ok    '} ${scene.name}, ${width} px, ${scheme}: ${passes} rules passed`);
          wrong.forEach((line) => console.log(`       ${line}`));
        }
        if (backgrounds.size !== SCHEMES.length) {
          failures += 1;
          console.log(`FAILED ${scene.name}, ${width} px: both colour schemes have the same background`);
        }
      }
    }
  } finally {
    await browser.close();
  }
  return failures;
}

// A browser that hangs fails the check.
setTimeout(() => { console.error('the browser hangs'); process.exit(1); }, LONGEST_RUN_MS).unref();
main().then(
  (failures) => { process.exitCode = failures ? 1 : 0; },
  (error) => { console.error(error); process.exitCode = 1; },
);
