// Writes the pictures of the README into docs/, from the demo: run by
// "e2e/browser/run screenshots".

import { fileURLToPath } from 'node:url';
import { ask, chat, demoURL, enter, launch, show } from './helper.mjs';

const browser = await launch();
const shot = (page, name) => page.screenshot({ path: fileURLToPath(new URL(`../../docs/${name}.png`, import.meta.url)), animations: 'disabled' });
const open = async (colorScheme) => {
  const page = await (await browser.newContext({ viewport: { width: 1280, height: 760 }, deviceScaleFactor: 1.25, colorScheme, reducedMotion: 'reduce' })).newPage();
  await page.goto(demoURL + '/');
  await enter(page);
  return page;
};

const page = await open('light');
await page.fill('#session', 'trip');
await ask(page, 'demo', 'My name is Ada.');
await ask(page, 'demo-reasoning', 'Show me Markdown');
await page.evaluate(() => { document.querySelector('#log').scrollTop = 1e6; });
await shot(page, 'playground');

// Some minutes of traffic, as the gateway would tell of them.
const dark = await open('dark');
for (let i = 0; i < 6; i++) {
  const [model, text, headers] = [['demo', 'count to 40', {}], ['demo-tools', 'hello', { 'x-session-id': 'trip' }], ['demo-429', 'hi', {}], ['demo-reasoning', 'why?', {}], ['demo-broken', 'hi', {}], ['demo', 'My name is Ada.', { 'x-session-id': 'trip' }]][i];
  await chat(demoURL, 'demo', { model, stream: i % 2 === 0, messages: [{ role: 'user', content: text }] }, headers).catch(() => {});
}
await dark.route('**/status?*', async (route) => {
  const status = await (await route.fetch()).json();
  const now = Math.floor(Date.parse(status.time) / 60000);
  const wave = (i, k) => 1 + Math.sin(i / k) + Math.sin(i / 2.3 + k) / 3;
  const minutes = Array.from({ length: 60 }, (_, i) => {
    const requests = Math.round(6 + 9 * wave(i, 9)), p50 = 420 + 160 * wave(i, 6);
    return {
      time: new Date((now - 59 + i) * 60000).toISOString(), requests, errors: i % 17 === 5 ? 3 : i % 11 === 2 ? 1 : 0,
      prompt_tokens: requests * 210, completion_tokens: Math.round(requests * 90 * wave(i, 13)),
      duration_ms: { p50, p90: p50 * 1.9, p99: p50 * (2.6 + wave(i, 4) / 2) },
    };
  });
  const sum = (k) => minutes.reduce((a, m) => a + m[k], 0);
  await route.fulfill({ json: { ...status, minutes, hour: { requests: sum('requests'), errors: sum('errors'), prompt_tokens: sum('prompt_tokens'), completion_tokens: sum('completion_tokens'), duration_ms: { p50: 571 } } } });
});
await show(dark, 'traffic');
await dark.waitForFunction(() => document.querySelectorAll('.chart rect.k0').length > 50 && document.querySelectorAll('#rows tr').length > 5);
await dark.evaluate(() => document.activeElement.blur());
await shot(dark, 'traffic');
await browser.close();
