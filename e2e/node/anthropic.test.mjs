// The official Anthropic SDK against the gateway: in demo mode, and in front of
// an upstream that misbehaves.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { aliceKey, assertAborted, demoURL, gatewayURL, plainURL, seen, unique, upstreamKey, user } from './helper.mjs';
import { assertContinues, citySchema, claude, events, noArguments, picture, send, sent, speakers, thought } from './dialects.mjs';

const demo = claude(demoURL);
const once = claude(gatewayURL);
const weather = { name: 'weather', description: 'the weather in a city', input_schema: citySchema };
const tool = (name) => ({ name, input_schema: noArguments });

// ask puts a question to the scripted upstream; behaviour may be a model of the
// test's own already.
const ask = (behaviour, extra = {}, options = {}) =>
  once.messages.create({ model: behaviour.includes('/') ? behaviour : unique(behaviour), max_tokens: 500, messages: user('hi'), ...extra }, options);
const textOf = (message) => message.content.filter((b) => b.type === 'text').map((b) => b.text).join('');

// gather reads a stream as the SDK hands it on and checks its order: one block
// at a time, numbered without gaps, each begun and ended once.
async function gather(stream) {
  const list = [];
  let open = -1;
  let blocks = 0;
  for await (const e of stream) {
    list.push(e);
    if (e.type === 'message_start') assert.equal(list.length, 1);
    if (e.type === 'content_block_start') {
      assert.equal(open, -1, 'two blocks are open');
      assert.equal(e.index, blocks++);
      open = e.index;
    }
    if (e.type === 'content_block_delta') assert.equal(e.index, open);
    if (e.type === 'content_block_stop') {
      assert.equal(e.index, open);
      open = -1;
    }
  }
  assert.equal(list[0].type, 'message_start');
  assert.deepEqual(list.slice(-2).map((e) => e.type), ['message_delta', 'message_stop']);
  const deltas = list.filter((e) => e.type === 'content_block_delta').map((e) => e.delta);
  return { list, text: deltas.map((d) => d.text ?? '').join(''), stop: list.at(-2).delta.stop_reason, usage: list.at(-2).usage };
}

test('a message', async () => {
  const { data, response, request_id } = await demo.messages.create({ model: 'demo', max_tokens: 500, messages: user('hi') }).withResponse();
  assert.match(data.id, /^msg_/);
  assert.deepEqual([data.type, data.role, data.model, data.stop_reason, data.stop_sequence], ['message', 'assistant', 'demo', 'end_turn', null]);
  assert.equal(data.content.length, 1);
  assert.match(data.content[0].text, /^Hello!/);
  assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
  assert.deepEqual([data.usage.cache_read_input_tokens, data.usage.cache_creation_input_tokens], [0, 0]);
  assert.equal(request_id, response.headers.get('x-request-id'));
  assert.equal(response.headers.get('x-apiproxy-fidelity'), 'converted');
});

test('a stream', async () => {
  const stream = await demo.messages.create({ model: 'demo', max_tokens: 500, messages: user('count to 20'), stream: true });
  const { list, text, stop, usage } = await gather(stream);
  assert.equal(text, Array.from({ length: 20 }, (_, i) => i + 1).join(' '));
  assert.equal(stop, 'end_turn');
  assert.equal(usage.output_tokens, 20);
  assert.ok(list[0].message.usage.input_tokens > 0);
  assert.ok(list.filter((e) => e.type === 'content_block_delta').length === 20, 'the tokens did not arrive one by one');
});

test('the stream helper', async () => {
  const pieces = [];
  const stream = demo.messages.stream({ model: 'demo', max_tokens: 500, messages: user('count to 5') }).on('text', (t) => pieces.push(t));
  const final = await stream.finalMessage();
  assert.equal(textOf(final), '1 2 3 4 5');
  assert.equal(pieces.join(''), '1 2 3 4 5');
  assert.equal(await stream.finalText(), '1 2 3 4 5');
  assert.equal(final.stop_reason, 'end_turn');
  assert.equal(final.usage.output_tokens, 5);
});

test('system prompt, history, stop sequences and limit', async () => {
  const model = unique('ok');
  const messages = [...user('my name is Ada'), { role: 'assistant', content: [{ type: 'text', text: 'Hello ' }, { type: 'text', text: 'Ada' }] }, ...user('<b> é 你好 \u2028')];
  const system = [{ type: 'text', text: 'Be short.', cache_control: { type: 'ephemeral' } }, { type: 'text', text: 'Be kind.' }];
  await once.messages.create({ model, max_tokens: 77, temperature: 0.5, stop_sequences: ['END'], system, messages });
  assert.deepEqual(await sent(model), {
    model,
    messages: [
      { role: 'system', content: 'Be short.\n\nBe kind.' },
      { role: 'user', content: 'my name is Ada' },
      { role: 'assistant', content: 'Hello Ada' },
      { role: 'user', content: '<b> é 你好 \u2028' },
    ],
    temperature: 0.5, stop: ['END'], max_tokens: 77,
  });
  const stopped = await demo.messages.create({ model: 'demo', max_tokens: 500, stop_sequences: ['4'], messages: user('count to 9') });
  assert.equal(textOf(stopped), '1 2 3 ');
  const limited = await demo.messages.create({ model: 'demo', max_tokens: 2, messages: user('count to 9') });
  assert.equal(limited.stop_reason, 'max_tokens');
});

// Tools.
test('a tool round trip', async () => {
  const messages = user('The weather in Paris?');
  const first = await demo.messages.create({ model: 'demo-tools', max_tokens: 500, messages, tools: [weather] });
  assert.equal(first.stop_reason, 'tool_use');
  const call = first.content.find((b) => b.type === 'tool_use');
  assert.deepEqual([call.name, call.input], ['weather', { city: 'Paris' }]);
  const second = await demo.messages.create({
    model: 'demo-tools', max_tokens: 500, tools: [weather],
    messages: [...messages, { role: 'assistant', content: first.content }, ...user([{ type: 'tool_result', tool_use_id: call.id, content: '18 degrees' }])],
  });
  assert.match(textOf(second), /> 18 degrees/);
  assert.equal(second.stop_reason, 'end_turn');
});

for (const stream of [false, true]) {
  test(`the tool runner, stream ${stream}`, async () => {
    const calls = [];
    const run = (input) => {
      calls.push(input);
      return '18 degrees';
    };
    const tools = [betaTool({ name: 'weather', description: 'the weather', inputSchema: citySchema, run })];
    const final = await demo.beta.messages.toolRunner({ model: 'demo-tools', max_tokens: 500, messages: user('The weather in New York?'), tools, stream }).runUntilDone();
    assert.match(textOf(final), /> 18 degrees/);
    assert.deepEqual(calls, [{ city: 'New York' }]);
  });
}

for (const behaviour of ['calls', 'calls-whole', 'text-and-calls']) {
  test(`parallel calls, ${behaviour}`, async () => {
    const request = { model: unique(behaviour), max_tokens: 500, messages: user('call both'), tools: [tool('one'), tool('two')] };
    const whole = await once.messages.create(request);
    const streamed = await once.messages.stream(request).finalMessage();
    await gather(await once.messages.create({ ...request, stream: true }));
    for (const message of [whole, streamed]) {
      assert.equal(message.stop_reason, 'tool_use');
      assert.equal(textOf(message), behaviour === 'text-and-calls' ? 'Let me see.' : '');
      const calls = message.content.filter((b) => b.type === 'tool_use');
      assert.deepEqual(calls.map((c) => [c.name, Object.keys(c.input)]), [['one', ['b', 'a']], ['two', ['b', 'a']]]);
      assert.equal(new Set(calls.map((c) => c.id)).size, 2);
      const results = calls.map((c) => ({ type: 'tool_result', tool_use_id: c.id, content: [{ type: 'text', text: `result of ${c.name}` }] }));
      await once.messages.create({ ...request, messages: [...request.messages, { role: 'assistant', content: message.content }, ...user([...results, { type: 'text', text: 'and?' }])] });
      const { messages } = await sent(request.model);
      assert.deepEqual(messages.slice(1).map((m) => m.role), ['assistant', 'tool', 'tool', 'user']);
      assert.deepEqual(messages[1].tool_calls.map((c) => c.id), messages.slice(2, 4).map((m) => m.tool_call_id));
      assert.deepEqual(messages.slice(2).map((m) => m.content), ['result of one', 'result of two', 'and?']);
    }
  });
}

test('digits and order of arguments survive', async () => {
  const model = unique('calls');
  const { text } = await send(gatewayURL, '/v1/messages', { model, max_tokens: 9, messages: user('hi'), tools: [tool('one')] });
  assert.match(text, /"input":\{"b": ?1, ?"a": ?9007199254740993\}/);
});

test('tool choice', async () => {
  const model = unique('calls');
  const tools = [tool('one'), tool('two')];
  const named = await once.messages.create({ model, max_tokens: 500, messages: user('hi'), tools, tool_choice: { type: 'tool', name: 'two', disable_parallel_tool_use: true } });
  assert.deepEqual(named.content.map((b) => b.name), ['two']);
  assert.equal((await sent(model)).parallel_tool_calls, false);
  for (const [type, want] of [['any', 'required'], ['none', 'none'], ['auto', undefined]]) {
    await once.messages.create({ model, max_tokens: 500, messages: user('hi'), tools, tool_choice: { type } });
    assert.equal((await sent(model)).tool_choice, want, type);
  }
});

test('a failed tool, and a tool that answers with a picture', async () => {
  const model = unique('ok');
  const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AA==' } };
  await ask(model, {
    tools: [tool('f'), tool('g')],
    messages: [
      ...user('w?'),
      { role: 'assistant', content: [{ type: 'text', text: 'see' }, { type: 'tool_use', id: 't1', name: 'f', input: { z: 1, a: 2 } }, { type: 'tool_use', id: 't2', name: 'g', input: {} }] },
      ...user([{ type: 'text', text: 'and?' }, { type: 'tool_result', tool_use_id: 't1', content: '1' }, { type: 'tool_result', tool_use_id: 't2', is_error: true, content: [{ type: 'text', text: 'no' }, image] }]),
    ],
  });
  assert.deepEqual((await sent(model)).messages.slice(1), [
    { role: 'assistant', content: 'see', tool_calls: [{ id: 't1', type: 'function', function: { name: 'f', arguments: '{"z":1,"a":2}' } }, { id: 't2', type: 'function', function: { name: 'g', arguments: '{}' } }] },
    { role: 'tool', tool_call_id: 't1', content: '1' },
    { role: 'tool', tool_call_id: 't2', content: 'Error: no' },
    { role: 'user', content: [{ type: 'text', text: 'Attachment of tool call t2:' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } }, { type: 'text', text: 'and?' }] },
  ]);
});

test('hosted tools are named as dropped', async () => {
  const model = unique('ok');
  const { response } = await once.messages.create({ model, max_tokens: 9, messages: user('hi'), tools: [{ type: 'web_search_20250305', name: 'web_search' }] }).withResponse();
  assert.match(response.headers.get('x-apiproxy-dropped'), /web_search/);
  assert.equal((await sent(model)).tools, undefined);
});

// Pictures, structure, thinking.
test('an image of 4 MB, and one by address', async () => {
  const content = [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data: picture } }, { type: 'text', text: 'what is this?' }];
  const message = await demo.messages.create({ model: 'demo', max_tokens: 500, messages: user(content) });
  assert.match(textOf(message), /1 image\*\* \(4194304 bytes\)/);
  const model = unique('ok');
  await ask(model, { messages: user([{ type: 'image', source: { type: 'url', url: 'https://example.com/a.png' } }]) });
  assert.deepEqual((await sent(model)).messages[0].content, [{ type: 'image_url', image_url: { url: 'https://example.com/a.png' } }]);
});

test('structured output', async () => {
  const Booking = z.object({ name: z.string(), people: z.number().int(), kind: z.enum(['lunch', 'dinner']) });
  const request = { model: 'demo', max_tokens: 500, messages: user('A table for Ada Lovelace, 4 people'), output_config: { format: zodOutputFormat(Booking) } };
  const want = { name: 'Ada Lovelace', people: 4, kind: 'lunch' };
  assert.deepEqual((await demo.messages.parse(request)).parsed_output, want);
  assert.deepEqual((await demo.messages.stream(request).finalMessage()).parsed_output, want);
});

const thinking = { type: 'enabled', budget_tokens: 1024 };

for (const behaviour of ['reasoning', 'think-tags']) {
  test(`thinking, ${behaviour}`, async () => {
    const request = { model: unique(behaviour), max_tokens: 2000, messages: user('hi'), thinking };
    const heard = [];
    const stream = once.messages.stream(request).on('thinking', (delta) => heard.push(delta));
    for (const message of [await once.messages.create(request), await stream.finalMessage()]) {
      assert.deepEqual(message.content.map((b) => b.type), ['thinking', 'text']);
      assert.equal(message.content[0].thinking, thought);
      assert.equal(typeof message.content[0].signature, 'string');
      if (behaviour === 'reasoning') assert.ok(message.content[0].signature, 'nothing to send the thinking back with');
      assert.equal(message.content[1].text, 'You said: hi');
    }
    assert.equal(heard.join(''), thought);
    assert.equal((await sent(request.model)).reasoning_effort, 'low');
    const unasked = await ask(behaviour);
    assert.deepEqual(unasked.content.map((b) => b.type), ['text']);
    assert.equal(textOf(unasked), 'You said: hi');
  });
}

test('thinking in the demo is counted', async () => {
  const message = await demo.messages.create({ model: 'demo-reasoning', max_tokens: 2000, messages: user('hi'), thinking });
  assert.match(message.content[0].thinking, /conversation/);
  assert.ok(message.usage.output_tokens_details.thinking_tokens > 0);
});

for (const asked of [{ thinking }, {}]) {
  test(`an upstream gets its reasoning back, ${asked.thinking ? 'shown' : 'hidden'}`, async () => {
    for (const stream of [false, true]) {
      const request = { model: unique('needs-reasoning'), max_tokens: 2000, tools: [tool('one')], ...asked };
      const first = stream ? await once.messages.stream({ ...request, messages: user('hi') }).finalMessage() : await once.messages.create({ ...request, messages: user('hi') });
      const call = first.content.find((b) => b.type === 'tool_use');
      const messages = [...user('hi'), { role: 'assistant', content: first.content }, ...user([{ type: 'tool_result', tool_use_id: call.id, content: 'done' }])];
      assert.equal(textOf(await once.messages.create({ ...request, messages })), 'You said: done');
    }
  });
}

test('reasoning never reaches an upstream that has none', async () => {
  const model = unique('ok');
  const assistant = [{ type: 'thinking', thinking: 'elsewhere', signature: 'Zm9yZWlnbg==' }, { type: 'redacted_thinking', data: 'xx' }, { type: 'text', text: 'yes' }];
  await ask(model, { messages: [...user('a'), { role: 'assistant', content: assistant }, ...user('b')], thinking });
  assert.deepEqual((await sent(model)).messages[1], { role: 'assistant', content: 'yes' });
});

// The gateway remembers that its upstream signs calls: this goes through the other
// one, so that no other test sees it.
test('thought signatures of an upstream come back to it', async () => {
  const client = claude(plainURL);
  const request = { model: unique('signed'), max_tokens: 500, tools: [tool('one')] };
  const first = await client.messages.create({ ...request, messages: user('hi') });
  const messages = [...user('hi'), { role: 'assistant', content: first.content }, ...user([{ type: 'tool_result', tool_use_id: first.content[0].id, content: 'done' }])];
  assert.equal(textOf(await client.messages.create({ ...request, messages })), 'You said: done');
});

// Usage and ends.
test('usage', async () => {
  for (const stream of [false, true]) {
    const { usage } = stream ? await gather(await ask('cached', { stream })) : await ask('cached');
    assert.deepEqual([usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens], [10, 90, 5]);
    assert.equal(usage.output_tokens_details.thinking_tokens, 2);
  }
  for (const behaviour of ['usage-every', 'usage-finish']) {
    const { usage } = await gather(await ask(behaviour, { stream: true }));
    assert.equal(usage.input_tokens, 7, behaviour);
  }
  const { data, response } = await once.messages.create({ model: unique('no-usage'), max_tokens: 9, messages: user('hi') }).withResponse();
  assert.ok(data.usage.input_tokens > 0);
  assert.equal(response.headers.get('x-apiproxy-usage'), 'estimate');
});

for (const [behaviour, want] of [['length', 'max_tokens'], ['length-call', 'max_tokens'], ['filter', 'refusal']]) {
  test(`an answer that ended by ${behaviour}`, async () => {
    const tools = behaviour === 'length-call' ? [tool('one')] : undefined;
    assert.equal((await ask(behaviour, { tools })).stop_reason, want);
    assert.equal((await gather(await ask(behaviour, { tools, stream: true }))).stop, want);
  });
}

test('count tokens', async () => {
  const model = unique('ok'); // nothing is known of it that would correct the estimate
  const count = async (extra) => (await once.messages.countTokens({ model, messages: user('hello world'), ...extra })).input_tokens;
  const plain = await count({});
  assert.equal(plain, 8);
  assert.ok((await count({ tools: [weather] })) > plain + 50);
  assert.ok((await count({ system: 'word '.repeat(1000) })) > plain + 1000);
  const results = [...user('w?'), { role: 'assistant', content: [{ type: 'tool_use', id: 't', name: 'f', input: {} }] }, ...user([{ type: 'tool_result', tool_use_id: 't', content: 'a'.repeat(36000) }])];
  assert.ok((await count({ messages: results })) > 9000);
  const { headers } = await send(gatewayURL, '/v1/messages/count_tokens', { model, messages: user('hello world') });
  assert.equal(headers.get('x-apiproxy-token-count'), 'estimate');
  assert.deepEqual(await seen(model), []);
});

test('models', async () => {
  const ids = [];
  for await (const model of demo.models.list({ limit: 3 })) ids.push(model.id);
  assert.ok(ids.includes('demo') && ids.includes('demo-echo'), ids.join());
  assert.equal(new Set(ids).size, ids.length);
  const model = await demo.models.retrieve('demo');
  assert.deepEqual([model.id, model.type, model.display_name], ['demo', 'model', 'demo']);
  assert.equal(new Date(model.created_at).getTime(), 1767225600000);
  assert.equal((await once.models.retrieve('org/team/model:b')).id, 'org/team/model:b');
  await assert.rejects(demo.models.retrieve('org/nothing'), (e) => e instanceof Anthropic.NotFoundError && e.type === 'not_found_error');
});

// Errors.
const failures = [
  { behaviour: '400', as: Anthropic.BadRequestError, status: 400, type: 'invalid_request_error' },
  { behaviour: '404', as: Anthropic.NotFoundError, status: 404, type: 'not_found_error' },
  { behaviour: '409', as: Anthropic.ConflictError, status: 409, type: 'conflict_error' },
  { behaviour: '422', as: Anthropic.BadRequestError, status: 400, type: 'invalid_request_error' },
  { behaviour: 'fastapi-422', as: Anthropic.BadRequestError, status: 400, type: 'invalid_request_error' },
  { behaviour: '429', as: Anthropic.RateLimitError, status: 429, type: 'rate_limit_error' },
  { behaviour: 'rate-first', as: Anthropic.RateLimitError, status: 429, type: 'rate_limit_error' },
  { behaviour: 'error-200', as: Anthropic.RateLimitError, status: 429, type: 'rate_limit_error' },
  { behaviour: '500', as: Anthropic.InternalServerError, status: 500, type: 'api_error' },
  { behaviour: '503', as: Anthropic.OverloadedError, status: 529, type: 'overloaded_error' },
  { behaviour: 'overflow', as: Anthropic.BadRequestError, status: 400, type: 'invalid_request_error', message: /^prompt is too long: 9001 tokens > 8192 maximum/ },
  { behaviour: 'filtered', as: Anthropic.BadRequestError, status: 400, type: 'invalid_request_error' },
  ...['401', '403', 'html-502', 'html-404', 'html-200', 'cut-json', 'empty-choices', 'redirect', 'hang-up'].map((behaviour) => ({
    behaviour, as: Anthropic.InternalServerError, status: 502, type: 'api_error',
  })),
];
for (const { behaviour, as, status, type, message = /./ } of failures) {
  for (const stream of [false, true]) {
    test(`error ${behaviour}, stream ${stream}`, async () => {
      await assert.rejects(ask(behaviour, { stream }), (e) => {
        assert.ok(e instanceof as, `${e.constructor.name}: ${e.message}`);
        assert.deepEqual([e.status, e.type, e.error.type], [status, type, 'error']);
        assert.match(e.error.error.message, message);
        assert.ok(e.requestID && e.error.request_id === e.requestID, `request ids ${e.requestID} and ${e.error.request_id}`);
        assert.doesNotMatch(JSON.stringify(e.error), /nginx|10\.1\.2\.3|<html/);
        assert.ok(!JSON.stringify(e.error).includes(upstreamKey), 'the upstream key is in the error');
        return true;
      });
    });
  }
}

test('refusals by the gateway', async () => {
  for (const [body, status] of [
    ['{"model":', 400],
    ['[]', 400],
    ['', 400],
    [{ model: 'ok', max_tokens: 9 }, 400],
    [{ model: 'ok', max_tokens: 9, messages: [] }, 400],
    [{ model: 'ok', max_tokens: 9, messages: 'hi' }, 400],
    [{ model: 'ok', max_tokens: 0, messages: user('hi') }, 400],
    [{ model: 'ok', max_tokens: 9, messages: user([{ type: 'smell' }]) }, 400],
  ]) {
    const answer = await send(gatewayURL, '/v1/messages', body);
    const { type, error } = answer.json();
    assert.deepEqual([answer.status, type, error.type], [status, 'error', 'invalid_request_error'], JSON.stringify(body));
    assert.ok(error.message);
  }
  const wrongMethod = await send(gatewayURL, '/v1/messages');
  assert.deepEqual([wrongMethod.status, wrongMethod.json().type], [405, 'error']);
});

for (const behaviour of ['cut-stream', 'early-end', 'error-in-stream']) {
  test(`${behaviour} is an error after what came`, async () => {
    let text = '';
    const types = [];
    await assert.rejects(
      async () => {
        for await (const e of await ask(behaviour, { stream: true })) {
          types.push(e.type);
          text += e.delta?.text ?? '';
        }
      },
      (e) => e instanceof Anthropic.APIError && e.type === 'api_error' && (behaviour !== 'error-in-stream' || /the model fell over/.test(e.apiMessage)),
    );
    assert.equal(text, 'You said: ');
    assert.ok(!types.includes('message_stop') && !types.includes('message_delta'), types.join());
    await assert.rejects(once.messages.stream({ model: unique(behaviour), max_tokens: 9, messages: user('hi') }).finalMessage(), Anthropic.AnthropicError);
  });
}

test('an error after a whole call stays an error', async () => {
  await assert.rejects(async () => gather(await ask('call-then-error', { stream: true, tools: [tool('one')] })), (e) => e instanceof Anthropic.APIError && e.type === 'api_error');
});

test('an answer of the demo that breaks off', async () => {
  const request = { model: 'demo-broken', max_tokens: 500, messages: user('hi') };
  await assert.rejects(demo.messages.stream(request).finalMessage(), (e) => e instanceof Anthropic.APIError && e.type === 'api_error');
  await assert.rejects(demo.messages.create(request), (e) => e instanceof Anthropic.InternalServerError && e.status === 502);
});

// Retries, which the SDK makes by what the gateway tells it.
for (const [behaviour, attempts, waits] of [['retry-429', 2, 900], ['retry-429-ms', 2, 45], ['retry-500', 3, 0], ['retry-hang-up', 2, 0]]) {
  test(`${behaviour} succeeds in the end`, async () => {
    const model = unique(behaviour);
    const message = await claude(gatewayURL, { maxRetries: 2 }).messages.create({ model, max_tokens: 9, messages: user('hi') });
    assert.equal(textOf(message), 'You said: hi');
    const list = await seen(model);
    assert.equal(list.length, attempts);
    assert.ok(list.at(-1).at - list.at(-2).at >= waits, `tried again after ${list.at(-1).at - list.at(-2).at} ms`);
  });
}
for (const [behaviour, attempts] of [['429', 3], ['503', 3], ['quota', 1], ['401', 1], ['400', 1], ['overflow', 1]]) {
  test(`${behaviour} is asked ${attempts} times`, async () => {
    const model = unique(behaviour);
    await assert.rejects(claude(gatewayURL, { maxRetries: 2 }).messages.create({ model, max_tokens: 9, messages: user('hi') }), Anthropic.APIError);
    assert.equal((await seen(model)).length, attempts);
  });
}

test('rate limits are told the Anthropic way', async () => {
  await assert.rejects(ask('429'), (e) => e.headers.get('anthropic-ratelimit-requests-remaining') === '0' && e.headers.get('retry-after-ms') === '10');
});

// The upstream's ways.
for (const behaviour of ['ok', 'json-for-stream', 'sse-for-json', 'text-plain', 'usage-every', 'usage-finish', 'crlf', 'comments', 'no-space', 'byte-by-byte', 'no-done', 'vendor-fields']) {
  test(`answers of ${behaviour}`, async () => {
    const said = 'hällo 你好 😀 <b>';
    const { text, stop } = await gather(await ask(behaviour, { stream: true, messages: user(said) }));
    assert.deepEqual([text, stop], [`You said: ${said}`, 'end_turn']);
    const whole = await ask(behaviour, { messages: user(said) });
    assert.deepEqual([textOf(whole), whole.stop_reason], [`You said: ${said}`, 'end_turn']);
  });
}

test('an event of 5 MB', async () => {
  assert.equal((await gather(await ask('big-event', { stream: true }))).text, 'abcdefghij'.repeat(524288));
});

for (const [field, extra, after] of [['top_k', { top_k: 5 }], ['max_tokens', {}, 'max_completion_tokens'], ['reasoning_effort', { thinking }], ['stream_options', { stream: true }]]) {
  test(`an upstream that refuses ${field}`, async () => {
    const model = unique(`no-${field}`);
    for (const tries of [2, 3]) {
      const answer = await ask(model, extra);
      if (extra.stream) assert.equal((await gather(answer)).text, 'You said: hi');
      else assert.equal(textOf(answer), 'You said: hi');
      assert.equal((await seen(model)).length, tries, 'it is not remembered what the upstream refuses');
    }
    const body = await sent(model);
    assert.equal(body[field], undefined);
    if (after) assert.equal(body[after], 500);
  });
}

// Keys and headers.
test('a key in either header', async () => {
  for (const headers of [{ 'x-api-key': aliceKey, authorization: null }, { authorization: `Bearer ${aliceKey}` }]) {
    assert.equal(textOf(await ask('ok', {}, { headers })), 'You said: hi');
  }
  const token = new Anthropic({ baseURL: gatewayURL, authToken: aliceKey, apiKey: null, maxRetries: 0 });
  assert.equal(textOf(await token.messages.create({ model: unique('ok'), max_tokens: 9, messages: user('hi') })), 'You said: hi');
  for (const apiKey of ['wrong', upstreamKey]) {
    await assert.rejects(claude(gatewayURL, { apiKey }).messages.create({ model: 'ok', max_tokens: 9, messages: user('hi') }), (e) => e instanceof Anthropic.AuthenticationError && e.type === 'authentication_error');
  }
});

test('what goes upstream', async () => {
  const model = unique('ok');
  await ask(model, {}, { headers: { 'anthropic-beta': 'a-1,b-2', 'x-api-key': aliceKey, cookie: 'a=1' } });
  const [{ path, headers, rawHeaders }] = await seen(model);
  assert.equal(path, '/v1/chat/completions');
  assert.equal(headers.authorization, `Bearer ${upstreamKey}`);
  assert.ok(!JSON.stringify(rawHeaders).includes(aliceKey), 'the client key went upstream');
  for (const name of Object.keys(headers)) assert.doesNotMatch(name, /^(anthropic-|x-stainless-|x-api-key$|cookie$)/);
});

test('a raw stream names every event', async () => {
  const { text, headers } = await send(gatewayURL, '/v1/messages?beta=true', { model: unique('ok'), max_tokens: 9, stream: true, messages: user('hi') });
  assert.match(headers.get('content-type'), /^text\/event-stream/);
  assert.equal(headers.get('x-accel-buffering'), 'no');
  const list = events(text);
  for (const { event, data } of list) assert.equal(event, data.type);
  const order = list.map((e) => e.event).filter((e, i, all) => e !== all[i - 1]);
  assert.deepEqual(order, ['message_start', 'ping', 'content_block_start', 'content_block_delta', 'content_block_stop', 'message_delta', 'message_stop']);
});

// Leaving, and waiting too long.
test('a client that leaves a stream frees the upstream', async () => {
  const model = unique('slow-stream');
  let seenEvents = 0;
  for await (const _ of await ask(model, { stream: true })) if (++seenEvents === 6) break;
  await assertAborted(model, Date.now());
});

test('a client that aborts frees the upstream', async () => {
  for (const stream of [false, true]) {
    const model = unique('slow-first');
    const controller = new AbortController();
    const request = ask(model, { stream }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    await assert.rejects(request, Anthropic.APIUserAbortError);
    await assertAborted(model, Date.now());
  }
});

test('an upstream that stays silent is a 504', async () => {
  const request = { model: unique('slow-first'), max_tokens: 9, messages: user('hi') };
  await assert.rejects(claude(plainURL).messages.create(request), (e) => e instanceof Anthropic.GatewayTimeoutError && e.type === 'timeout_error');
});

// Sessions.
for (const [from, to] of [...Object.keys(speakers).map((to) => ['anthropic', to]), ['chat', 'anthropic']]) {
  test(`a session begun in ${from} continues in ${to}`, () => assertContinues(`node-${randomUUID()}`, from, to));
}

test('a streamed session', async () => {
  const headers = { 'x-session-id': randomUUID() };
  const said = await once.messages.stream({ model: unique('ok'), max_tokens: 9, messages: user('one') }, { headers }).finalText();
  await assert.rejects(async () => gather(await ask('cut-stream', { stream: true, messages: user('lost') }, { headers })));
  const model = unique('ok');
  await ask(model, { messages: user('two') }, { headers });
  assert.deepEqual((await sent(model)).messages.map((m) => m.content), ['one', said, 'two']);
});

test('many at once get their own answers', async () => {
  await Promise.all(
    Array.from({ length: 40 }, async (_, i) => {
      const said = `caller ${i} says ${randomUUID()}`;
      const { text } = await gather(await ask(i % 2 ? 'ok' : 'byte-by-byte', { stream: true, messages: user(said) }));
      assert.equal(text, `You said: ${said}`);
    }),
  );
});
