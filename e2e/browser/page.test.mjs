// The page at /, used as people use it.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { aliceKey, answered, ask, chat, demoURL, enter, gatewayURL, launch, overflow, phone, show, user, visit } from './helper.mjs';

let browser;
before(async () => { browser = await launch(); });
after(() => browser?.close());

const log = (page) => page.innerText('#log');
const status = (code) => `status of ${code}`; // how the console tells of a failed request

test('a question, its stream, a stop, a reload, the session, the traffic', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  await page.click('#newsession');
  const session = await page.inputValue('#session');
  assert.match(session, /^page-[0-9a-f]{12}$/);
  await page.fill('#ask', 'count to 2000');
  await page.keyboard.press('Enter');

  const lengths = new Set();
  await page.waitForFunction(() => document.querySelector('.md')?.textContent.includes('3 4 5'));
  for (let i = 0; i < 10; i++) {
    lengths.add((await page.innerText('.md')).length);
    await page.waitForTimeout(50);
  }
  assert.ok(lengths.size > 2, `the answer grew ${lengths.size} times`);
  await page.click('#send[aria-label="Stop"]');
  await answered(page);
  const stopped = await log(page);
  assert.match(stopped, /≈ \d+ tokens[^]*tokens\/s[^]*stopped/);
  await page.waitForTimeout(300);
  assert.equal(await log(page), stopped);

  await page.reload();
  await page.waitForSelector('#v-playground:not([hidden])');
  assert.equal(await page.inputValue('#session'), session);
  await show(page, 'sessions');
  await page.click(`#recent a:has-text("${session}")`);
  await page.waitForSelector('#found .card');
  const found = await page.innerText('#found');
  assert.match(found, /count to 2000[^]*1 2 3 4 5[^]*The last answer broke off/);

  await show(page, 'traffic');
  const row = page.locator('#rows tbody tr', { hasText: session }).last();
  assert.match(await row.innerText(), /200\s+client closed\s+demo\s+openai, stream\s+POST \/v1\/chat\/completions/);
});

test('figures of an answer', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  await ask(page, 'demo', 'count to 20');
  assert.match(await page.innerText('.meta'), /^20 tokens\s+7 in\s+[\d.]+ m?s\s+first \d+ ms\s+\d+\.\d tokens\/s\s+Copy$/);
  await page.uncheck('#stream');
  await ask(page, 'demo', 'count to 3');
  assert.match(await page.locator('.meta').last().innerText(), /^3 tokens\s+\d+ in\s+\d+ ms/);
  await page.check('#stream');
  await page.fill('#max_tokens', '4');
  await ask(page, 'demo', 'count to 9');
  assert.match(await page.locator('.msg').last().innerText(), /^Model:\s+1 2 3 4\s[^]*cut off: length/);
});

test('settings reach the model', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  for (const [id, text] of Object.entries({ '#system': 'Be brief.', '#temperature': '0.5', '#top_p': '0.9', '#max_tokens': '500' })) await page.fill(id, text);
  await page.selectOption('#effort', 'low');
  await page.click('summary:has-text("Tools")');
  await page.click('#sample');
  await page.fill('#extra', '{"seed":7,"user":"u"}');
  await ask(page, 'demo-echo', 'hi');
  const sent = JSON.parse(await page.locator('.msg').last().evaluate((e) => e.querySelector('.md').textContent));
  assert.equal(sent.tools[0].function.name, 'get_weather');
  assert.deepEqual({ ...sent, tools: 1 }, {
    model: 'demo-echo', messages: [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'hi' }], temperature: 0.5, top_p: 0.9, stream: true,
    max_tokens: 500, reasoning_effort: 'low', tools: 1, stream_options: { include_usage: true }, seed: 7, user: 'u',
  });
  await page.fill('#extra', '{"seed":');
  await page.fill('#ask', 'again');
  await page.keyboard.press('Enter');
  assert.match(await page.innerText('.fail'), /“extra” is not JSON/);
  await page.fill('#extra', '');
  await page.click('.fail button:has-text("Try again")');
  await answered(page);
  assert.equal(await page.locator('.fail').count(), 0);
});

test('reasoning is folded, and opens', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  await ask(page, 'demo-reasoning', 'why?');
  assert.equal(await page.isVisible('.think'), false);
  await page.click('.fold summary');
  assert.match(await page.innerText('.think'), /The user wrote 1 words/);
});

test('tool calls are shown and answered', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  await page.click('summary:has-text("Tools")');
  await page.click('#sample');
  await ask(page, 'demo-tools', 'What is the weather in Paris?');
  assert.match(await page.innerText('.fold'), /Tool call get_weather[^]*"city": "Paris"/);
  await page.fill('#log form textarea', '21 degrees');
  await page.click('text=Send the results');
  await answered(page);
  assert.match(await log(page), /Result of a tool\s+21 degrees[^]*The tool says:\s+21 degrees/);
});

test('images by paste, by drop and by choice', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  await page.evaluate((data) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], 'a.png', { type: 'image/png' }));
    const ask = document.querySelector('#ask');
    ask.dispatchEvent(new ClipboardEvent('paste', { clipboardData: files, bubbles: true, cancelable: true }));
    ask.dispatchEvent(new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true }));
  }, png);
  await page.setInputFiles('#files', { name: 'b.png', mimeType: 'image/png', buffer: Buffer.from(png, 'base64') });
  await page.waitForFunction(() => document.querySelectorAll('#thumbs img').length === 3);
  await page.click('#thumbs button >> nth=0');
  await ask(page, 'demo', 'What is this?');
  assert.equal(await page.locator('.user img').count(), 2);
  assert.match(await log(page), /I see 2 images \(\d+ bytes\)/);
  await page.setInputFiles('#files', { name: 'c.svg', mimeType: 'image/svg+xml', buffer: Buffer.from('<svg/>') });
  assert.match(await page.innerText('#say'), /PNG, JPEG/);
});

test('the model picker searches', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  const options = () => page.locator('#models li').allInnerTexts();
  await page.click('#model');
  assert.ok((await options()).length >= 7);
  await page.fill('#model', 'reas');
  assert.deepEqual(await options(), ['demo-reasoning']);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  assert.equal(await page.inputValue('#model'), 'demo-reasoning');
  assert.equal(await page.isVisible('#models'), false);
  await page.fill('#model', 'unheard-of');
  assert.match((await options())[0], /None of the list/);
  await page.fill('#model', 'demo');
  await page.locator('#models li', { hasText: /^demo-slow$/ }).click();
  assert.equal(await page.inputValue('#model'), 'demo-slow');
});

test('the key stays in the tab', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  const kept = await page.evaluate(async () => [sessionStorage.getItem('key'), localStorage.length, document.cookie, (await indexedDB.databases()).length, location.href.includes('demo')]);
  assert.deepEqual(kept, ['demo', 0, '', 0, false]);
  const other = await page.context().newPage();
  await other.goto(demoURL + '/');
  assert.equal(await other.isVisible('#keyform'), true);
  await other.close();
  await ask(page, 'demo', 'My name is Ada.');
  await page.click('#leave');
  await page.waitForSelector('#keyform');
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.doesNotMatch(await page.textContent('main'), /Nice to meet you/);
});

test('failures are told with what to do', async (t) => {
  const page = await visit(t, browser, { expected: [status(401), status(404), status(429), 'ERR_INTERNET_DISCONNECTED'] });
  await page.fill('#key', 'wrong');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => /does not open/.test(document.querySelector('#keyerror').textContent));
  await page.fill('#key', 'sp ace');
  await page.keyboard.press('Enter');
  assert.match(await page.innerText('#keyerror'), /no spaces/);
  await enter(page);

  await ask(page, 'demo-429', 'hi');
  assert.match(await page.innerText('.fail'), /Too many requests · 429\s+Rate limit reached[^]*Wait for 1 s[^]*Try again\s+req_/);
  await page.fill('#model', 'demo');
  await page.click('button:text("Try again")');
  await answered(page);
  assert.match(await log(page), /Hello! You said:\s+hi\s[^]*This request held 1 message/);

  await ask(page, 'demo-broken', 'hi');
  assert.match(await page.locator('.msg').last().innerText(), /Hello! You said:[^]*The answer broke off[^]*broke off in the middle/);
  await ask(page, 'nothing', 'hi');
  assert.match(await page.locator('.msg').last().innerText(), /Not found · 404[^]*nothing/);
  await page.context().setOffline(true);
  await ask(page, 'demo', 'hi');
  assert.match(await page.locator('.msg').last().innerText(), /No connection/);
  await page.context().setOffline(false);
});

test('a session is opened, continued and deleted', async (t) => {
  const session = 'browser ' + randomUUID();
  const name = session.replace(' ', '/"<b>'); // any visible characters may be in a name
  await chat(demoURL, 'demo', { model: 'demo', messages: user('My name is Grace.') }, { 'x-session-id': name });
  await chat(demoURL, 'demo', { model: 'demo', messages: [{ role: 'system', content: 'Title it.' }, ...user('hello')] }, { 'x-session-id': name });
  const page = await visit(t, browser, { expected: [status(404)] });
  await enter(page);
  await show(page, 'sessions');
  await page.fill('#sid', name);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#found .card');
  assert.match(await page.innerText('#found'), /1 turn[^]*Title it\.[^]*hello/);
  await page.click('#found .seg label >> nth=1');
  assert.match(await page.innerText('#found'), /My name is Grace\.[^]*Nice to meet you, Grace/);
  assert.equal(await page.locator('text=Continue in the playground').count(), 0);
  await page.click('#found .seg label >> nth=0');
  await page.click('text=Continue in the playground');
  await page.waitForSelector('#v-playground:not([hidden])');
  assert.equal(await page.inputValue('#system'), 'Title it.');
  await ask(page, 'demo', 'What was that?');
  assert.match(await log(page), /hello[^]*This request held 4 messages[^]*2 messages from the session/);

  await page.goBack();
  await page.waitForSelector('#found .card');
  assert.match(await page.innerText('#found'), /2 turns/);
  await page.click('text=Delete');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Keep it');
  await page.keyboard.press('Enter');
  await page.click('text=Delete');
  await page.click('text=Delete it');
  await page.waitForSelector('text=is deleted');
  assert.equal((await fetch(`${demoURL}/context/${encodeURIComponent(name)}`, { headers: { authorization: 'Bearer demo' } })).status, 404);
  await page.click('#open button');
  await page.waitForSelector('text=This key has no session');
});

test('traffic shows requests as they happen', async (t) => {
  const page = await visit(t, browser, { url: gatewayURL });
  await enter(page, aliceKey);
  await show(page, 'traffic');
  await page.waitForSelector('.chart');
  const id = 'live-' + randomUUID();
  await chat(gatewayURL, aliceKey, { model: 'ok', messages: user('hi') }, { 'x-request-id': id, 'x-session-id': 'seen' });
  await chat(gatewayURL, aliceKey, { model: '500', messages: user('hi') }, { 'x-request-id': id + '-b' });
  await chat(gatewayURL, process.env.BOB_KEY, { model: 'ok', messages: user('hi') }, { 'x-request-id': id + '-bob' });
  await page.waitForSelector(`#rows tr:has-text("${id}-b")`);
  const texts = (await page.locator('#rows tbody tr').allInnerTexts()).join('\n');
  assert.match(texts, /500\s+upstream error[^]*broken[^]*200\s+ok\s+openai\s+POST \/v1\/chat\/completions\s+\d+ ms\s+\d+ ms\s+7 → 4\s+seen/);
  assert.doesNotMatch(texts, /-bob/);
  await page.check('#onlybad');
  assert.equal(await page.locator(`#rows tr:has-text("${id}")`).count(), 1);
  const charts = await page.locator('.chart').allInnerTexts();
  assert.match(charts.join('\n'), /Requests\s+\d+\s+last hour · peak \d+[^]*Latency\s+p50p90p99\s+\d+[^]*Errors\s+\d+[^]*Tokens\s+outin\s+\d+/);
  assert.ok(await page.locator('.chart rect.k0').count() > 0);
  assert.ok((await page.locator('.chart path.k0').getAttribute('d')).startsWith('M'));
});

test('the lines to connect a client hold this address', async (t) => {
  const page = await visit(t, browser);
  await show(page, 'connect'); // no key is needed
  const clients = await page.locator('#clients button').allInnerTexts();
  assert.ok(clients.length >= 9, `clients: ${clients}`);
  for (const name of clients) {
    await page.click(`#clients button:text-is("${name}")`);
    await page.waitForFunction((n) => document.querySelector('#client section:not([hidden]) h2').textContent === n, name);
    const text = await page.innerText('#client');
    assert.ok(text.includes(demoURL), `${name}: ${text}`);
    assert.doesNotMatch(text, /127\.0\.0\.1:8000|@(url|key|model)\b|\$http/, name);
  }
});

test('copying works with and without a clipboard', async (t) => {
  const page = await visit(t, browser);
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await show(page, 'connect');
  const want = await page.innerText('#client pre >> nth=0');
  await page.click('#client button >> nth=0');
  await page.waitForSelector('text=Copied');
  assert.equal((await page.evaluate(() => navigator.clipboard.readText())).trim(), want.trim());
  await page.evaluate(() => navigator.clipboard.writeText('old'));
  await page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { configurable: true, value: undefined }));
  await page.waitForSelector('#client button:has-text("Copy")');
  await page.click('#client button >> nth=0');
  await page.evaluate(() => delete navigator.clipboard);
  assert.equal((await page.evaluate(() => navigator.clipboard.readText())).trim(), want.trim());
});

test('hostile answers stay text', async (t) => {
  const page = await visit(t, browser, { url: gatewayURL });
  await page.evaluate(() => { globalThis.hacked = () => { globalThis.wasHacked = true; }; });
  await enter(page, aliceKey);
  await page.fill('#session', 'hostile');
  await ask(page, 'hostile', 'attack');
  await page.click('.fold summary');
  await page.waitForTimeout(200);
  await inert(page, '#log');
  const text = await log(page);
  for (const kept of ['<img src=x onerror="hacked()">', '<script>hacked()</script>', '<svg onload="hacked()">', '<iframe src=', '<javascript:hacked()>', '<style>body{display:none}</style>', '<form action=']) {
    assert.ok(text.includes(kept), `${kept} is shown`);
  }
  await show(page, 'sessions');
  await page.fill('#sid', 'hostile');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#found .card');
  await inert(page, '#found');
});

// inert checks what a hostile text became: nothing but plain elements, and links
// that lead to the web.
async function inert(page, where) {
  const found = await page.evaluate((selector) => {
    const all = [...document.querySelectorAll(selector + ' *')];
    for (const e of all) { // whatever would run when it is pointed at
      e.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
    }
    return {
      hacked: globalThis.wasHacked,
      tags: [...new Set(all.map((e) => e.localName))].filter((n) => ['img', 'script', 'iframe', 'style', 'base', 'meta', 'object', 'embed', 'link', 'svg', 'i'].includes(n)),
      handlers: all.flatMap((e) => [...e.attributes]).filter((a) => a.name.startsWith('on') || /^\s*(javascript|data|vbscript):/i.test(a.value)).map((a) => a.name),
      links: all.filter((e) => e.localName === 'a').map((e) => [e.protocol, e.rel, e.target].join(' ')),
    };
  }, where);
  assert.equal(found.hacked, undefined);
  assert.deepEqual(found.tags, []);
  assert.deepEqual(found.handlers, []);
  assert.ok(found.links.length > 0);
  for (const link of found.links) assert.equal(link, 'https: noopener noreferrer _blank');
}

test('a page that text was put into as HTML would be stopped by its policy', async (t) => {
  const page = await visit(t, browser, { expected: ['TrustedHTML', 'Content Security Policy'] });
  const refused = await page.evaluate(() => {
    try {
      document.body.innerHTML += '<img src=x>';
      return '';
    } catch (e) {
      return e.name;
    }
  });
  assert.equal(refused, 'TypeError');
});

test('a phone shows every view without scrolling sideways', async (t) => {
  const page = await visit(t, browser, { ...phone, expected: [status(429)] });
  const check = async (what) => assert.ok(await overflow(page) <= 0, `${what} is ${await overflow(page)} px too wide`);
  await check('the key');
  await enter(page);
  await check('the empty playground');
  await page.tap('#more');
  await page.fill('#session', 'a-phone');
  await page.tap('#more');
  await ask(page, 'demo', 'show me markdown');
  await ask(page, 'demo-echo', 'x'.repeat(300));
  await ask(page, 'demo-429', 'x');
  await check('the playground');
  await page.tap('#more');
  assert.equal(await page.isVisible('#system'), true);
  await check('the settings');
  await page.tap('#code');
  await check('the code');
  await page.keyboard.press('Escape');
  await page.tap('#more');
  for (const name of ['sessions', 'traffic', 'connect']) {
    await page.tap(`nav a[href="#${name}"]`);
    await page.waitForSelector(`#v-${name}:not([hidden])`);
    if (name === 'sessions') {
      await page.tap('#recent a:has-text("a-phone")');
      await page.waitForSelector('#found .card');
    }
    await page.waitForTimeout(200);
    await check(name);
  }
});
