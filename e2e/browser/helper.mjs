// What the tests of the page need: a browser, pages that note whatever goes wrong
// in them, and requests beside the page.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set: start the suite with e2e/browser/run`);

export const demoURL = env('DEMO_URL'); // -demo
export const gatewayURL = env('GATEWAY_URL'); // in front of the scripted upstream
export const aliceKey = env('ALICE_KEY');

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export const launch = () => chromium.launch({
  executablePath: env('CHROMIUM'),
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
});

export const desktop = { viewport: { width: 1280, height: 800 } };
export const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };

// visit opens the page in a tab of its own. When the test ends, nothing may have
// gone to another origin, and nothing been complained of but what the test expects:
// texts of the console.
export async function visit(t, browser, { url = demoURL, expected = [], ...options } = {}) {
  const context = await browser.newContext({ ...desktop, ...options });
  context.setDefaultTimeout(15_000);
  await context.addInitScript(axeSource);
  const problems = [];
  context.on('request', (r) => {
    if (!r.url().startsWith(url + '/') && !r.url().startsWith('data:')) problems.push('asked ' + r.url());
  });
  const page = await context.newPage();
  page.on('pageerror', (e) => problems.push('threw ' + e.message));
  page.on('dialog', (d) => {
    problems.push('opened a dialog: ' + d.message());
    d.dismiss();
  });
  page.on('console', (m) => {
    if (['error', 'warning'].includes(m.type()) && !expected.some((text) => m.text().includes(text))) problems.push(`${m.type()}: ${m.text()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(problems, []);
  });
  await page.goto(url + '/');
  return page;
}

// enter opens the gateway with a key.
export async function enter(page, key = 'demo') {
  await page.fill('#key', key);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('#model').value && !document.querySelector('#v-playground').hidden);
}

// ask sends a question to a model and waits for the end of the answer.
export async function ask(page, model, text) {
  await page.fill('#model', model);
  await page.fill('#ask', text);
  await page.press('#ask', 'Enter');
  await answered(page);
}

export async function answered(page) {
  await page.waitForSelector('#send[aria-label="Send"]');
  await page.waitForSelector('.dots', { state: 'detached' });
}

// show opens a view by its place in the navigation.
export async function show(page, name) {
  await page.click(`nav a[href="#${name}"]`);
  await page.waitForSelector(`#v-${name}:not([hidden])`);
}

// accessible looks for what axe finds serious.
export async function accessible(page, what) {
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const bad = found.violations.filter((v) => ['serious', 'critical'].includes(v.impact))
    .map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target} (${n.any[0]?.message ?? n.html})`).join('; ')}`);
  assert.deepEqual(bad, [], what);
}

// fits says how far a page is wider than its window.
export const overflow = (page) => page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.querySelector('main').scrollWidth) - innerWidth);

// chat sends a request beside the page.
export async function chat(url, key, body, headers = {}) {
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });
  await answer.text();
  return answer;
}

export const user = (content) => [{ role: 'user', content }];
