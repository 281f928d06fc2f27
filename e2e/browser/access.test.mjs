// The page without a mouse, in the dark, and as a screen reader finds it.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { accessible, answered, ask, enter, launch, phone, show, visit } from './helper.mjs';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

// tabTo presses Tab until the element has the focus, which must be seen. At the
// end of the page it is on none.
async function tabTo(page, selector, key = 'Tab') {
  for (let i = 0; i < 80; i++) {
    await page.keyboard.press(key);
    const at = await page.evaluate((s) => {
      const e = document.activeElement, style = getComputedStyle(e);
      const box = e.closest('.composer, label') ?? e;
      return { hit: e.matches(s), name: e.outerHTML.slice(0, 80), seen: e === document.body || style.outlineStyle !== 'none' || box.matches(':focus-within') };
    }, selector);
    assert.ok(at.seen, `the focus on ${at.name} is not seen`);
    if (at.hit) return;
  }
  assert.fail(`Tab does not lead to ${selector}`);
}

test('once through by keyboard alone', async (t) => {
  const page = await visit(t, browser);
  const type = (text) => page.keyboard.type(text);
  const press = (...keys) => keys.reduce((p, k) => p.then(() => page.keyboard.press(k)), Promise.resolve());
  assert.equal(await page.evaluate(() => document.activeElement.id), 'key');
  await type('demo');
  await press('Enter');
  await page.waitForFunction(() => document.activeElement.id === 'ask' && document.querySelector('#model').value);

  await tabTo(page, '#model');
  await type('reason');
  await press('ArrowDown', 'Enter');
  assert.equal(await page.inputValue('#model'), 'demo-reasoning');
  await tabTo(page, '#newsession');
  await press('Enter');
  const session = await page.inputValue('#session');
  await tabTo(page, '#ask', 'Shift+Tab');
  await type('My name is Ada.');
  await press('Shift+Enter');
  await type('Hello.');
  await press('Enter');
  await answered(page);
  assert.match(await page.innerText('#log'), /Nice to meet you, Ada/);
  assert.match(await page.innerText('#say'), /The answer is complete: \d+ tokens/);
  await tabTo(page, '.fold summary', 'Shift+Tab');
  await press('Enter');
  assert.equal(await page.isVisible('.think'), true);

  await tabTo(page, '#ask');
  await type('count to 500');
  await press('Enter');
  await page.waitForSelector('.dots');
  await press('Escape');
  await answered(page);
  assert.match(await page.innerText('#log'), /stopped/);

  await tabTo(page, '#code');
  await press('Enter');
  await tabTo(page, '[name=api]');
  await press('ArrowRight', 'ArrowRight');
  await tabTo(page, '[name=lang]');
  await press('ArrowRight');
  assert.match(await page.innerText('#snippet'), /import os[^]*\/v1\/messages/);
  await press('Escape');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'code');

  await tabTo(page, 'nav a[href="#sessions"]', 'Shift+Tab');
  await press('Enter');
  await page.waitForFunction(() => document.activeElement.textContent === 'Sessions');
  await tabTo(page, '#sid');
  await type(session);
  await press('Enter');
  await page.waitForSelector('#found .card');
  await tabTo(page, '#found .head button');
  await press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Keep it');
  await press('Enter');
  await tabTo(page, '#found button.primary');
  await press('Enter');
  await page.waitForFunction(() => document.activeElement.id === 'ask');

  await tabTo(page, 'nav a[href="#traffic"]', 'Shift+Tab');
  await press('Enter');
  await page.waitForSelector('#rows tr .tag');
  await tabTo(page, '#onlybad');
  await press('Space');
  await tabTo(page, 'nav a[href="#connect"]', 'Shift+Tab');
  await press('Enter');
  await tabTo(page, '#clients button:nth-child(2)');
  await press('Enter');
  assert.match(await page.innerText('#client'), /^Codex/);
  await tabTo(page, '#leave', 'Shift+Tab');
  await press('Enter');
  await page.waitForSelector('#keyform');
});

for (const colorScheme of ['light', 'dark']) {
  for (const [device, options] of [['desktop', {}], ['phone', phone]]) {
    test(`axe finds nothing serious: ${colorScheme}, ${device}`, async (t) => {
      const page = await visit(t, browser, { ...options, colorScheme, reducedMotion: 'reduce', expected: ['status of 401', 'status of 429'] });
      const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).every((n) => n < 60));
      assert.equal(dark, colorScheme === 'dark');
      await page.fill('#key', 'wrong');
      await page.keyboard.press('Enter');
      await page.waitForFunction(() => document.querySelector('#keyerror').textContent);
      await accessible(page, 'the key');
      await enter(page);
      await accessible(page, 'the empty playground');

      if (device === 'phone') await page.click('#more');
      await page.fill('#session', `axe ${colorScheme} ${device}`.replaceAll(' ', '-'));
      await ask(page, 'demo-reasoning', 'show me markdown');
      await page.click('.fold summary');
      await ask(page, 'demo-429', 'hi');
      await page.click('summary:has-text("Tools")');
      await page.click('#sample');
      await ask(page, 'demo-tools', 'the weather in Paris');
      await accessible(page, 'the playground');
      await page.fill('#model', 'demo');
      await page.press('#model', 'ArrowDown');
      await accessible(page, 'the model picker');
      await page.press('#model', 'Escape');
      await page.click('#code');
      await accessible(page, 'the code');
      await page.keyboard.press('Escape');
      if (device === 'phone') await page.click('#more');

      await show(page, 'sessions');
      await accessible(page, 'no session');
      await page.click('#recent a >> nth=0');
      await page.waitForSelector('#found .card');
      await page.click('#found .head button');
      await accessible(page, 'a session');
      await show(page, 'traffic');
      await page.waitForSelector('#rows .tag');
      await accessible(page, 'the traffic');
      await show(page, 'connect');
      await accessible(page, 'the clients');
    });
  }
}
