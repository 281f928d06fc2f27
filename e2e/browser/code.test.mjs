// "Copy as code": each program runs and is answered.

import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ask, enter, launch, visit } from './helper.mjs';

const runFile = promisify(execFile);
let browser, dir;
before(async () => {
  browser = await launch();
  dir = await mkdtemp(join(tmpdir(), 'apiproxy-code-'));
});
after(async () => {
  await browser?.close();
  await rm(dir, { recursive: true, force: true });
});

const apis = ['Chat', 'Responses', 'Messages', 'Gemini'];
const commands = {
  curl: ['sh', 'program.sh'],
  Python: ['python3', 'program.py'],
  Node: ['node', 'program.mjs'],
  Go: ['go', 'run', 'program.go'],
};

// program opens the box and takes what it shows for an API and a language.
async function program(page, api, language) {
  await page.click('#code');
  await page.locator('#api label', { hasText: api }).click();
  await page.locator('#lang label', { hasText: language }).click();
  const text = await page.textContent('#snippet pre');
  await page.keyboard.press('Escape');
  return text;
}

async function run(language, text) {
  const [command, ...args] = commands[language];
  await writeFile(join(dir, args.at(-1)), text);
  const { stdout } = await runFile(command, args, { cwd: dir, env: { ...process.env, APIPROXY_KEY: 'demo' }, maxBuffer: 64 << 20 });
  return stdout;
}

for (const language of Object.keys(commands)) {
  test(`${language} in four dialects`, async (t) => {
    const page = await visit(t, browser);
    await enter(page);
    await page.fill('#model', 'demo');
    await page.fill('#system', 'Be `brief`: "$x" \\ """ \'.');
    await page.fill('#ask', 'count to 3');
    for (const api of apis) {
      const text = await program(page, api, language);
      assert.doesNotMatch(text, /Bearer demo/);
      const answer = await run(language, text);
      assert.match(answer, /"1"[^]*" 2"[^]*" 3"/, `${api}: ${text}\n${answer}`);
    }
    await page.uncheck('#stream');
    const answer = await run(language, await program(page, 'Chat', language));
    assert.equal(JSON.parse(answer).choices[0].message.content, '1 2 3');
  });
}

test('a conversation with tools, an image, settings and a session', async (t) => {
  const page = await visit(t, browser);
  await enter(page);
  await page.uncheck('#stream');
  await page.click('summary:has-text("Tools")');
  await page.click('#sample');
  for (const [id, text] of Object.entries({ '#system': 'Be brief.', '#temperature': '0.5', '#top_p': '0.9', '#max_tokens': '500' })) await page.fill(id, text);
  await page.selectOption('#effort', 'low');
  const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
  await page.setInputFiles('#files', { name: 'a.png', mimeType: 'image/png', buffer: png });
  await page.waitForSelector('#thumbs img');
  await ask(page, 'demo-tools', 'The weather in Paris?');
  await page.fill('#log form textarea', '21 degrees');
  await page.click('text=Send the results');
  await page.waitForSelector('text=The tool says');
  await page.fill('#model', 'demo-echo');

  // What reaches the model is the same in every dialect.
  let first;
  for (const api of apis) {
    await page.fill('#session', '');
    const answer = await run('curl', await program(page, api, 'curl'));
    const echoed = JSON.parse(answer.match(/"((?:[^"\\]|\\.)*\\"model\\"(?:[^"\\]|\\.)*)"/)?.[0] ?? assert.fail(`${api}: ${answer}`));
    const sent = JSON.parse(echoed);
    const shape = {
      roles: sent.messages.map((m) => m.role), call: sent.messages[2].tool_calls[0].function, result: JSON.stringify(sent.messages[3].content).includes('21 degrees'),
      image: sent.messages[1].content.some((p) => p.image_url?.url.endsWith(png.toString('base64'))), tool: sent.tools[0].function.name, settings: [sent.temperature, sent.top_p, sent.max_tokens ?? sent.max_completion_tokens],
      effort: sent.reasoning_effort,
    };
    shape.call = [shape.call.name, JSON.parse(shape.call.arguments)];
    first ??= shape;
    assert.deepEqual(shape, first, api);
  }
  assert.deepEqual(first.roles, ['system', 'user', 'assistant', 'tool', 'assistant']);

  await page.fill('#model', 'demo');
  await page.fill('#ask', 'My name is Ada.');
  await page.click('#fresh');
  for (const [i, api] of apis.entries()) {
    await page.fill('#ask', i ? 'What is my name?' : 'My name is Ada.');
    await page.fill('#session', 'code-$x`"');
    assert.match(await run(Object.keys(commands)[i], await program(page, api, Object.keys(commands)[i])), /Ada/, api);
  }
});
