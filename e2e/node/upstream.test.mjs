// The official SDK against the gateway in front of an upstream that misbehaves.

import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import {
  alice, aliceKey, assertAborted, bob, bobKey, collect, context, gatewayURL, plain, post, seen, seenBody, unique, upstreamKey, upstreamURL, user,
} from './helper.mjs';

const client = alice();
const once = alice({ maxRetries: 0 });
const ask = (on, behaviour, extra = {}) => on.chat.completions.create({ model: behaviour.includes('/') ? behaviour : unique(behaviour), messages: user('hi'), ...extra });

// Errors: class and fields as if the upstream had been asked directly, except
// where its failure is not the client's.
const failures = [
  { behaviour: '400', as: OpenAI.BadRequestError, status: 400, code: 'unsupported_value', param: 'temperature' },
  { behaviour: '404', as: OpenAI.NotFoundError, status: 404, code: 'model_not_found' },
  { behaviour: '409', as: OpenAI.ConflictError, status: 409, code: 'conflict' },
  { behaviour: '422', as: OpenAI.UnprocessableEntityError, status: 422 },
  { behaviour: 'fastapi-422', as: OpenAI.UnprocessableEntityError, status: 422 },
  { behaviour: '429', as: OpenAI.RateLimitError, status: 429, code: 'rate_limit_exceeded' },
  { behaviour: 'error-200', as: OpenAI.RateLimitError, status: 429, code: 'rate_limit_exceeded' },
  { behaviour: '500', as: OpenAI.InternalServerError, status: 500 },
  { behaviour: '503', as: OpenAI.InternalServerError, status: 503, code: 'server_is_overloaded' },
  { behaviour: '401', as: OpenAI.InternalServerError, status: 502, code: 'upstream_auth' },
  { behaviour: '403', as: OpenAI.InternalServerError, status: 502, code: 'upstream_auth' },
  { behaviour: 'html-502', as: OpenAI.InternalServerError, status: 502 },
  { behaviour: 'html-404', as: OpenAI.InternalServerError, status: 502 },
  { behaviour: 'html-200', as: OpenAI.InternalServerError, status: 502, code: 'upstream_malformed' },
  { behaviour: 'cut-json', as: OpenAI.InternalServerError, status: 502 },
  { behaviour: 'redirect', as: OpenAI.InternalServerError, status: 502 },
  { behaviour: 'hang-up', as: OpenAI.InternalServerError, status: 502 },
];
for (const { behaviour, as, status, code, param } of failures) {
  for (const stream of [false, true]) {
    // Inside a stream that has begun, a status can't be told any more.
    if (stream && behaviour === 'cut-json') continue;
    test(`error ${behaviour}, stream ${stream}`, async () => {
      await assert.rejects(ask(once, behaviour, { stream }), (e) => {
        assert.ok(e instanceof as, `${e.constructor.name}: ${e.message}`);
        assert.equal(e.status, status);
        if (code) assert.equal(e.code, code);
        if (param) assert.equal(e.param, param);
        assert.ok(e.error?.message && e.error?.type, `no OpenAI error: ${JSON.stringify(e.error)}`);
        assert.doesNotMatch(JSON.stringify(e.error), /nginx|10\.1\.2\.3|<html/);
        assert.ok(!JSON.stringify(e.error).includes(upstreamKey), 'the upstream key is in the error');
        return true;
      });
    });
  }
}

test("the upstream's own error passes byte for byte", async () => {
  for (const behaviour of ['400', '422', '500']) {
    const body = JSON.stringify({ model: unique(behaviour), messages: user('hi') });
    const [through, direct] = await Promise.all([post(gatewayURL, body), post(upstreamURL, body)]);
    assert.equal(through.status, direct.status);
    assert.equal(await through.text(), await direct.text());
  }
});

test('refusals by the gateway', async () => {
  for (const [body, status, code] of [
    ['{"model":', 400, 'invalid_json'],
    ['[]', 400, 'invalid_json'],
    ['', 400, 'invalid_json'],
    ['{"model":"ok","messages":[]} {}', 400, 'invalid_json'],
    ['{"model":"ok"}', 400, 'missing_required_parameter'],
    ['{"model":"ok","messages":"hi"}', 400, undefined],
    ['{"model":"a","model":"b","messages":[]}', 400, undefined],
  ]) {
    const answer = await post(gatewayURL, body);
    const { error } = await answer.json();
    assert.equal(answer.status, status, body);
    assert.equal(error.type, 'invalid_request_error', body);
    if (code) assert.equal(error.code, code, body);
  }
  await assert.rejects(alice({ apiKey: 'wrong' }).models.list(), OpenAI.AuthenticationError);
  await assert.rejects(alice({ apiKey: upstreamKey }).models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.get('/chat/completions'), (e) => e.status === 405 && e.headers.get('allow').includes('POST'));
});

// Retries, which the SDK makes by what the gateway tells it.
for (const [behaviour, attempts, waits] of [['retry-429', 2, 900], ['retry-429-ms', 2, 45], ['retry-500', 3, 0], ['retry-hang-up', 2, 0]]) {
  test(`${behaviour} succeeds in the end`, async () => {
    const model = unique(behaviour);
    const completion = await ask(client, model);
    assert.equal(completion.choices[0].message.content, 'You said: hi');
    const list = await seen(model);
    assert.equal(list.length, attempts);
    assert.ok(list.at(-1).at - list.at(-2).at >= waits, `tried again after ${list.at(-1).at - list.at(-2).at} ms`);
  });
}

for (const [behaviour, attempts] of [['429', 3], ['500', 3], ['503', 3], ['quota', 1], ['401', 1], ['400', 1]]) {
  test(`${behaviour} is asked ${attempts} times`, async () => {
    const model = unique(behaviour);
    await assert.rejects(ask(client, model), OpenAI.APIError);
    assert.equal((await seen(model)).length, attempts);
  });
}

test('rate limit headers reach the client', async () => {
  await assert.rejects(ask(once, '429'), (e) => e.headers.get('x-ratelimit-remaining-requests') === '0' && e.headers.get('retry-after-ms') === '10');
});

// The form that was asked for.
test('an event stream nobody asked for becomes one answer', async () => {
  const completion = await ask(once, 'sse-for-json');
  assert.equal(completion.object, 'chat.completion');
  assert.equal(completion.choices[0].message.content, 'You said: hi');
  assert.equal(completion.choices[0].finish_reason, 'stop');
});

test('one answer becomes the stream that was asked for', async () => {
  const { text, finish, chunks } = await collect(await ask(once, 'json-for-stream', { stream: true }));
  assert.equal(text, 'You said: hi');
  assert.equal(finish, 'stop');
  assert.equal(chunks[0].object, 'chat.completion.chunk');
});

test('a JSON answer with another content type keeps it', async () => {
  const body = JSON.stringify({ model: unique('text-plain'), messages: user('hi') });
  const [through, direct] = await Promise.all([post(gatewayURL, body), post(upstreamURL, body)]);
  assert.equal(through.headers.get('content-type'), direct.headers.get('content-type'));
  assert.equal(await through.text(), await direct.text());
});

// Streams as they are found.
for (const behaviour of ['ok', 'usage-every', 'usage-finish', 'crlf', 'comments', 'no-space', 'byte-by-byte', 'no-done', 'vendor-fields']) {
  test(`stream ${behaviour}`, async () => {
    const said = 'hällo 你好 😀 <b>';
    const { text, finish } = await collect(await ask(once, behaviour, { stream: true, messages: user(said) }));
    assert.equal(text, `You said: ${said}`);
    assert.equal(finish, 'stop');

    const body = JSON.stringify({ model: unique(behaviour), stream: true, messages: user(said) });
    const [through, direct] = await Promise.all([post(gatewayURL, body), post(upstreamURL, body)]);
    assert.equal(await through.text(), await direct.text());
  });
}

test('usage in a stream', async () => {
  const last = await collect(await ask(once, 'usage-every', { stream: true }));
  assert.ok(last.chunks.every((c) => c.usage.prompt_tokens === 7));
  const asked = await collect(await ask(once, 'ok', { stream: true, stream_options: { include_usage: true } }));
  assert.equal(asked.chunks.at(-1).usage.completion_tokens, 4);
  const unasked = await collect(await ask(once, 'ok', { stream: true }));
  assert.ok(unasked.chunks.every((c) => !c.usage && c.choices.length === 1));
});

test('an event of 5 MB', async () => {
  const { text } = await collect(await ask(once, 'big-event', { stream: true }));
  assert.equal(text, 'abcdefghij'.repeat(524288));
});

for (const behaviour of ['cut-stream', 'early-end', 'error-in-stream']) {
  test(`${behaviour} is an error after what came`, async () => {
    const stream = await ask(once, behaviour, { stream: true });
    let text = '';
    await assert.rejects(
      async () => {
        for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
      },
      (e) => e instanceof OpenAI.APIError && (behaviour !== 'error-in-stream' || e.code === 'fell_over'),
    );
    assert.equal(text, 'You said: ');
    await assert.rejects(once.chat.completions.stream({ model: unique(behaviour), messages: user('hi') }).finalContent(), OpenAI.OpenAIError);
  });
}

test('an error as the first event', async () => {
  await assert.rejects(async () => collect(await ask(once, 'error-first', { stream: true })), (e) => e instanceof OpenAI.APIError && e.code === 'fell_over');
});

// Leaving, and waiting too long.
test('a client that leaves a stream frees the upstream', async () => {
  const model = unique('slow-stream');
  const stream = await ask(once, model, { stream: true });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 3) break;
  await assertAborted(model, Date.now());
});

test('a client that aborts frees the upstream', async () => {
  for (const stream of [false, true]) {
    const model = unique('slow-first');
    const controller = new AbortController();
    const request = once.chat.completions.create({ model, messages: user('hi'), stream }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    await assert.rejects(request, OpenAI.APIUserAbortError);
    await assertAborted(model, Date.now());
  }
});

test("the client's time-out frees the upstream", async () => {
  const model = unique('slow-first');
  await assert.rejects(once.chat.completions.create({ model, messages: user('hi') }, { timeout: 400 }), OpenAI.APIConnectionTimeoutError);
  await assertAborted(model, Date.now());
});

test('an upstream that stays silent is a 504', async () => {
  const model = unique('slow-first');
  await assert.rejects(ask(plain({ maxRetries: 0 }), model), (e) => e instanceof OpenAI.InternalServerError && e.status === 504 && e.code === 'upstream_timeout');
  await assertAborted(model, Date.now());
});

// Byte-exactness.
const ugly = (model) => ` { "z":1,\t"model" : "${model}","messages":[ {"role":"user","content":"\\u00e9\\ud83d\\ude00 \\/ <"} ],\r\n"seed":9007199254740993,"x":{"b":1.0,"a":1e-7,"a":-0},"unknown":null } \n`;

test('the request reaches the upstream byte for byte', async () => {
  const model = unique('ok');
  const answer = await post(gatewayURL, ugly(model));
  assert.equal(answer.headers.get('x-apiproxy-fidelity'), 'exact');
  assert.equal((await seenBody(model)).toString(), ugly(model));
});

test('a byte order mark does not reach the upstream', async () => {
  const model = unique('ok');
  assert.equal((await post(gatewayURL, '\ufeff' + ugly(model))).status, 200);
  assert.equal((await seenBody(model)).toString(), ugly(model));
});

test('a session changes nothing but the messages', async () => {
  const headers = { 'x-session-id': randomUUID() };
  const model = unique('ok');
  await post(gatewayURL, ugly(model), headers);
  assert.equal((await seenBody(model)).toString(), ugly(model));
  const answer = await post(gatewayURL, ugly(model), headers);
  assert.equal(answer.headers.get('x-apiproxy-fidelity'), 'spliced');
  assert.equal(answer.headers.get('x-session-messages'), '2');
  const body = (await seenBody(model)).toString();
  const [before, after] = ugly(model).split('[ {');
  assert.ok(body.startsWith(before + '['), body);
  assert.ok(body.endsWith('{' + after), body);
  assert.deepEqual(JSON.parse(body).messages.map((m) => m.role), ['user', 'assistant', 'user']);
});

test('Accept asks for a stream', async () => {
  const model = unique('ok');
  const body = `{"model":"${model}","messages":[{"role":"user","content":"hi"}]}`;
  const answer = await post(gatewayURL, body, { accept: 'text/event-stream' });
  assert.match(answer.headers.get('content-type'), /^text\/event-stream/);
  assert.ok((await answer.text()).endsWith('data: [DONE]\n\n'));
  const sent = JSON.parse(await seenBody(model));
  assert.equal(sent.stream, true);
  assert.deepEqual({ ...sent, stream: undefined }, { ...JSON.parse(body), stream: undefined });
});

test('the answer comes back byte for byte', async () => {
  const body = JSON.stringify({ model: unique('ok'), messages: user('é < 😀') });
  const [through, direct] = await Promise.all([post(gatewayURL, body), post(upstreamURL, body)]);
  assert.equal(await through.text(), await direct.text());
});

test('unknown parameters reach the upstream', async () => {
  const model = unique('ok');
  const extra = { chat_template_kwargs: { enable_thinking: false }, guided_json: { z: 1, a: 2 }, top_k: 40 };
  await ask(once, model, extra);
  assert.equal((await seenBody(model)).toString(), JSON.stringify({ model, messages: user('hi'), ...extra }));
});

test('a request of 4 MB', async () => {
  const model = unique('ok');
  const url = 'data:image/png;base64,' + randomBytes(4 << 20).toString('base64');
  await ask(once, model, { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }] });
  assert.equal(JSON.parse(await seenBody(model)).messages[0].content[0].image_url.url, url);
});

test('other paths are forwarded as they are', async () => {
  const id = randomUUID();
  const content = randomBytes(8 << 20);
  await client.files.create({ file: await toFile(content, 'a.bin'), purpose: 'batch' }, { headers: { 'x-request-id': id } });
  const [request] = await seen(id);
  assert.equal(request.method, 'POST');
  assert.equal(request.path, '/v1/files');
  assert.ok((await seenBody(id)).includes(content));
  const other = await client.post('/rerank?top=3', { body: { query: 'q' } });
  assert.equal(other.path, '/v1/rerank');
});

// Headers and secrets.
test('request headers go by the allow-list', async () => {
  const model = unique('ok');
  await once.chat.completions.create(
    { model, messages: user('hi') },
    {
      headers: {
        'x-session-id': randomUUID(), cookie: 'a=1', 'x-api-key': aliceKey, 'x-forwarded-for': '1.2.3.4', forwarded: 'for=1.2.3.4', 'x-internal': 'secret',
        'openai-beta': 'assistants=v2', 'idempotency-key': 'k1', 'x-title': 'e2e', 'http-referer': 'https://example.com/', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      },
    },
  );
  const [{ headers, rawHeaders }] = await seen(model);
  assert.equal(headers.authorization, `Bearer ${upstreamKey}`);
  assert.equal(rawHeaders.filter((h) => h === `Bearer ${upstreamKey}`).length, 1);
  assert.ok(!JSON.stringify(rawHeaders).includes(aliceKey), 'the client key went upstream');
  for (const name of Object.keys(headers)) {
    assert.ok(!/^(x-stainless-.*|cookie|x-api-key|x-session-id|x-internal|x-forwarded-.*|forwarded|via)$/.test(name), `${name} went upstream`);
  }
  assert.match(headers['user-agent'], /^Mozilla\/5\.0/);
  assert.equal(headers.host, new URL(upstreamURL).host);
  assert.deepEqual(
    ['openai-beta', 'idempotency-key', 'x-title', 'traceparent'].map((h) => headers[h]),
    ['assistants=v2', 'k1', 'e2e', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'],
  );
});

test("without the mask the SDK's own headers go upstream", async () => {
  const model = unique('ok');
  await ask(plain(), model);
  const [{ headers }] = await seen(model);
  assert.match(headers['user-agent'], /^OpenAI\/JS/);
  assert.equal(headers['x-stainless-lang'], 'js');
  assert.equal(headers.authorization, `Bearer ${upstreamKey}`);
});

test('response headers', async () => {
  const { response } = await once.chat.completions
    .create({ model: unique('headers'), messages: user('hi') }, { headers: { 'x-request-id': 'my-id-1', 'x-session-id': 's-' + randomUUID() } })
    .withResponse();
  const h = response.headers;
  assert.equal(h.get('x-request-id'), 'my-id-1');
  assert.equal(h.get('x-upstream-request-id'), 'req_upstream');
  assert.equal(h.get('x-ratelimit-remaining-requests'), '59');
  assert.equal(h.get('openai-processing-ms'), '12');
  assert.match(h.get('x-session-id'), /^s-/);
  for (const name of ['set-cookie', 'server']) assert.equal(h.get(name), null, name);
});

test("the upstream's key never comes down", async () => {
  for (const [behaviour, stream] of [['leak-json', false], ['leak-stream', true], ['leak-stream', false], ['leak-error', false], ['401', false]]) {
    const answer = await post(gatewayURL, JSON.stringify({ model: unique(behaviour), stream, messages: user('hi') }));
    const text = (await answer.text()) + JSON.stringify([...answer.headers]);
    assert.ok(!text.includes(upstreamKey), `${behaviour}, stream ${stream}: ${text}`);
  }
  const completion = await ask(once, 'leak-json');
  assert.equal(completion.choices[0].message.content.length, `my key is ${upstreamKey}`.length);
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ['plain', 'org/model-a', 'org/team/model:b']);
  for (const id of ids) assert.equal((await client.models.retrieve(id)).id, id);
  assert.equal((await client.models.retrieve('org/model-a')).context_length, 131072);
});

// Sessions under failure.
test("a session is its key's own", async () => {
  const session = randomUUID();
  const headers = { 'x-session-id': session };
  await client.chat.completions.create({ model: unique('ok'), messages: user('secret of alice') }, { headers });
  const model = unique('ok');
  await bob().chat.completions.create({ model, messages: user('hi') }, { headers });
  assert.equal(JSON.parse(await seenBody(model)).messages.length, 1);
  assert.equal((await context(gatewayURL, bobKey, session)).body.messages.length, 2);
  assert.match(JSON.stringify((await context(gatewayURL, aliceKey, session)).body), /secret of alice/);
  assert.equal((await context(gatewayURL, bobKey, randomUUID())).status, 404);
});

test('a failed turn is not recorded', async () => {
  const session = randomUUID();
  const options = { headers: { 'x-session-id': session } };
  await assert.rejects(once.chat.completions.create({ model: unique('500'), messages: user('hi') }, options));
  await assert.rejects(async () => collect(await once.chat.completions.create({ model: unique('cut-stream'), messages: user('hi'), stream: true }, options)));
  assert.equal((await context(gatewayURL, aliceKey, session)).status, 404);
});

test('a turn that its client left is kept as far as it came', async () => {
  const session = randomUUID();
  const options = { headers: { 'x-session-id': session } };
  const first = unique('slow-stream');
  const stream = await once.chat.completions.create({ model: first, messages: user('go on'), stream: true }, options);
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 4) break;
  await assertAborted(first, Date.now());
  const model = unique('ok');
  await once.chat.completions.create({ model, messages: user('and now?') }, options);
  const { messages } = JSON.parse(await seenBody(model));
  assert.deepEqual(messages.map((m) => m.role), ['user', 'assistant', 'user']);
  assert.match(messages[1].content, /^0 1 2 /);
});

test('a history that the client manages itself is left alone', async () => {
  const options = { headers: { 'x-session-id': randomUUID() } };
  await once.chat.completions.create({ model: unique('ok'), messages: user('one') }, options);
  const model = unique('ok');
  const messages = [...user('one'), { role: 'assistant', content: 'edited' }, ...user('two')];
  const { response } = await once.chat.completions.create({ model, messages }, options).withResponse();
  assert.equal((await seenBody(model)).toString(), JSON.stringify({ model, messages }));
  assert.equal(response.headers.get('x-apiproxy-fidelity'), 'exact');
  const { body } = await context(gatewayURL, aliceKey, options.headers['x-session-id']);
  assert.deepEqual(body.messages.map((m) => m.content), ['one', 'edited', 'two', 'You said: two']);
});

test('a session id that is not one', async () => {
  const answer = await post(gatewayURL, JSON.stringify({ model: unique('ok'), messages: user('hi') }), { 'x-session-id': 'x'.repeat(256) });
  assert.equal(answer.status, 400);
});

test('many at once get their own answers', async () => {
  const session = randomUUID();
  await Promise.all(
    Array.from({ length: 60 }, async (_, i) => {
      const said = `caller ${i} says ${randomUUID()}`;
      const headers = i % 3 === 0 ? { 'x-session-id': `${session}-${i}` } : {};
      const request = { model: unique(i % 2 ? 'ok' : 'byte-by-byte'), messages: user(said) };
      const { text } = await collect(await once.chat.completions.create({ ...request, stream: true }, { headers }));
      assert.equal(text, `You said: ${said}`);
    }),
  );
});
