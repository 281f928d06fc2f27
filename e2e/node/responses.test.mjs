// The official OpenAI SDK on the Responses API: against the gateway in demo
// mode, and in front of an upstream that misbehaves.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import OpenAI from 'openai';
import { zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { assertAborted, bob, demoURL, gatewayURL, plainURL, seen, unique, upstreamKey, user } from './helper.mjs';
import { assertContinues, citySchema, events, noArguments, openai, patch, picture, send, sent, speakers, thought } from './dialects.mjs';

const demo = openai(demoURL);
const once = openai(gatewayURL);
const weather = { type: 'function', name: 'weather', description: 'the weather in a city', parameters: citySchema, strict: null };
const tool = (name) => ({ type: 'function', name, parameters: noArguments, strict: null });

const request = (behaviour, extra = {}) => ({ model: behaviour.includes('/') ? behaviour : unique(behaviour), input: 'hi', ...extra });
const ask = (behaviour, extra, options) => once.responses.create(request(behaviour, extra), options);
const callsOf = (response) => response.output.filter((i) => i.type.endsWith('_call'));

// gather reads a stream as the SDK hands it on and checks its order: events
// numbered without gaps, items in the order of their places, the last one whole.
async function gather(stream) {
  const list = [];
  const items = [];
  for await (const e of stream) {
    assert.equal(e.sequence_number, list.length);
    list.push(e);
    if (e.type === 'response.output_item.added') {
      assert.equal(e.output_index, items.length);
      items.push(e.item.id);
    }
    if (e.item_id) assert.equal(e.item_id, items[e.output_index], e.type);
    if (e.type === 'response.output_item.done') assert.equal(e.item.id, items[e.output_index]);
  }
  assert.deepEqual(list.slice(0, 2).map((e) => e.type), ['response.created', 'response.in_progress']);
  const last = list.at(-1);
  assert.match(last.type, /^response\.(completed|incomplete|failed)$/);
  assert.equal(last.response.id, list[0].response.id);
  const done = list.filter((e) => e.type === 'response.output_item.done').map((e) => e.item);
  assert.deepEqual(last.response.output, done);
  const join = (type) => list.filter((e) => e.type === type).map((e) => e.delta).join('');
  return { list, types: list.map((e) => e.type), response: last.response, text: join('response.output_text.delta'), summary: join('response.reasoning_summary_text.delta') };
}
const askStream = async (behaviour, extra, options) => gather(await ask(behaviour, { ...extra, stream: true }, options));

test('text', async () => {
  const { data, response } = await demo.responses.create({ model: 'demo', input: 'hi' }).withResponse();
  assert.match(data.id, /^resp_/);
  assert.match(data.output_text, /^Hello!/);
  assert.deepEqual([data.object, data.model, data.status, data.error, data.incomplete_details, data.store], ['response', 'demo', 'completed', null, null, true]);
  assert.deepEqual([data.temperature, data.top_p, data.tool_choice, data.parallel_tool_calls, data.truncation], [1, 1, 'auto', true, 'disabled']);
  assert.deepEqual([data.text, data.tools, data.metadata, data.previous_response_id], [{ format: { type: 'text' } }, [], {}, null]);
  assert.equal(data.usage.total_tokens, data.usage.input_tokens + data.usage.output_tokens);
  assert.equal(response.headers.get('x-apiproxy-fidelity'), 'converted');
});

test('a stream', async () => {
  const { types, text, response } = await gather(await demo.responses.create({ model: 'demo', input: 'count to 20', stream: true }));
  const numbers = Array.from({ length: 20 }, (_, i) => i + 1).join(' ');
  assert.equal(text, numbers);
  assert.deepEqual([response.status, response.usage.output_tokens], ['completed', 20]);
  assert.equal(response.output[0].content[0].text, numbers);
  assert.deepEqual(types.filter((t, i) => t !== types[i - 1]), [
    'response.created', 'response.in_progress', 'response.output_item.added', 'response.content_part.added', 'response.output_text.delta',
    'response.output_text.done', 'response.content_part.done', 'response.output_item.done', 'response.completed',
  ]);
  assert.equal(types.filter((t) => t === 'response.output_text.delta').length, 20);
});

test('the stream helper', async () => {
  const pieces = [];
  const stream = demo.responses.stream({ model: 'demo', input: 'count to 5' }).on('response.output_text.delta', (e) => pieces.push(e.delta));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, '1 2 3 4 5');
  assert.equal(pieces.join(''), '1 2 3 4 5');
  assert.equal(final.status, 'completed');
});

test('instructions, history and settings', async () => {
  const model = unique('ok');
  const response = await ask(model, {
    instructions: 'Be short.', temperature: 0.5, max_output_tokens: 77, metadata: { a: 'b' }, reasoning: { effort: 'high', summary: 'auto' }, prompt_cache_key: 'k',
    input: [
      { role: 'developer', content: 'Be kind.' },
      { role: 'user', content: [{ type: 'input_text', text: 'a' }, { type: 'input_text', text: 'b' }] },
      { role: 'assistant', content: [{ type: 'output_text', text: 'c', annotations: [] }] },
      { role: 'user', content: '<b> é 你好 \u2028' },
    ],
  });
  const { messages, ...settings } = await sent(model);
  assert.deepEqual(messages.map((m) => m.role), ['system', 'user', 'assistant', 'user']);
  assert.match(messages[0].content, /^Be short\.\n\nBe kind\.$/);
  assert.deepEqual(messages.slice(1).map((m) => m.content), ['a\n\nb', 'c', '<b> é 你好 \u2028']);
  assert.deepEqual(settings, { model, temperature: 0.5, max_tokens: 77, reasoning_effort: 'high', prompt_cache_key: 'k' });
  assert.deepEqual([response.instructions, response.metadata, response.max_output_tokens, response.reasoning.effort], ['Be short.', { a: 'b' }, 77, 'high']);
});

// Tools.
for (const chained of [true, false]) {
  test(`a tool round trip, ${chained ? 'chained' : 'with the whole input'}`, async () => {
    const input = user('The weather in Paris?');
    const first = await demo.responses.create({ model: 'demo-tools', input, tools: [weather] });
    const [call] = callsOf(first);
    assert.deepEqual([call.type, call.name, call.arguments, call.status], ['function_call', 'weather', '{"city":"Paris"}', 'completed']);
    const output = { type: 'function_call_output', call_id: call.call_id, output: '18 degrees' };
    const next = chained ? { previous_response_id: first.id, input: [output] } : { input: [...input, ...first.output, output] };
    const second = await demo.responses.create({ model: 'demo-tools', tools: [weather], ...next });
    assert.match(second.output_text, /> 18 degrees/);
    assert.equal(second.previous_response_id, chained ? first.id : null);
  });
}

test('a chained answer to a call needs no tools', async () => {
  const first = await ask('calls', { tools: [tool('one')], tool_choice: { type: 'function', name: 'one' } });
  const second = await ask('ok', { previous_response_id: first.id, input: [{ type: 'function_call_output', call_id: callsOf(first)[0].call_id, output: 'done' }] });
  assert.equal(second.output_text, 'You said: done');
});

for (const behaviour of ['calls', 'calls-whole', 'text-and-calls']) {
  test(`parallel calls, ${behaviour}`, async () => {
    const model = unique(behaviour);
    const tools = [tool('one'), tool('two')];
    const streamed = await askStream(model, { tools });
    for (const name of ['one', 'two']) {
      const place = streamed.response.output.findIndex((i) => i.name === name);
      const deltas = streamed.list.filter((e) => e.type === 'response.function_call_arguments.delta' && e.output_index === place);
      assert.equal(deltas.map((e) => e.delta).join(''), streamed.response.output[place].arguments);
    }
    for (const response of [await ask(model, { tools }), streamed.response, await once.responses.stream({ model, input: 'hi', tools }).finalResponse()]) {
      const calls = callsOf(response);
      assert.deepEqual(calls.map((c) => [c.name, Object.keys(JSON.parse(c.arguments))]), [['one', ['b', 'a']], ['two', ['b', 'a']]]);
      if (behaviour === 'calls') assert.equal(calls[0].arguments, '{"b": 1, "a": 9007199254740993}');
      assert.equal(new Set(calls.map((c) => c.call_id)).size, 2);
      const text = response.output.filter((i) => i.type === 'message').map((i) => i.content[0].text).join('');
      assert.equal(text, behaviour === 'text-and-calls' ? 'Let me see.' : '');
      await ask(model, { tools, previous_response_id: response.id, input: [...calls.map((c) => ({ type: 'function_call_output', call_id: c.call_id, output: `result of ${c.name}` })), ...user('and?')] });
      const { messages } = await sent(model);
      assert.deepEqual(messages.map((m) => m.role), ['user', 'assistant', 'tool', 'tool', 'user']);
      assert.deepEqual(messages[1].tool_calls.map((c) => c.id), calls.map((c) => c.call_id));
      assert.deepEqual(messages.slice(2).map((m) => m.content), ['result of one', 'result of two', 'and?']);
    }
  });
}

test('tool choice', async () => {
  const model = unique('calls');
  const tools = ['one', 'two', 'three'].map(tool);
  const say = async (tool_choice) => {
    await ask(model, { tools, tool_choice });
    const body = await sent(model);
    return [body.tools.map((t) => t.function.name).join(), body.tool_choice];
  };
  assert.deepEqual(await say('auto'), ['one,two,three', undefined]);
  assert.deepEqual(await say('none'), ['one,two,three', 'none']);
  assert.deepEqual(await say('required'), ['one,two,three', 'required']);
  assert.deepEqual(await say({ type: 'function', name: 'two' }), ['one,two,three', { type: 'function', function: { name: 'two' } }]);
  assert.deepEqual(await say({ type: 'allowed_tools', mode: 'required', tools: [{ type: 'function', name: 'one' }] }), ['one', 'required']);
});

test('a custom tool gets its text whole', async () => {
  const model = unique('calls');
  const tools = [{ type: 'custom', name: 'apply_patch', description: 'edits files', format: { type: 'grammar', syntax: 'lark', definition: 'start: "x"' } }];
  const streamed = await askStream(model, { tools });
  assert.ok(streamed.types.includes('response.custom_tool_call_input.done'));
  for (const response of [await ask(model, { tools }), streamed.response]) {
    const [call] = callsOf(response);
    assert.deepEqual([call.type, call.name, call.input], ['custom_tool_call', 'apply_patch', patch]);
    const answered = await ask(model, { tools, input: [...user('hi'), ...response.output, { type: 'custom_tool_call_output', call_id: call.call_id, output: 'Done!' }] });
    assert.equal(answered.output_text, 'You said: Done!');
    const { messages } = await sent(model);
    assert.deepEqual(JSON.parse(messages[1].tool_calls[0].function.arguments), { input: patch });
  }
});

test('a tool in a namespace keeps it', async () => {
  const model = unique('calls');
  const tools = [{ type: 'namespace', name: 'mcp__docs', description: 'documents', tools: [tool('search')] }];
  const response = await ask(model, { tools });
  const [call] = callsOf(response);
  assert.deepEqual([call.type, call.namespace, call.name], ['function_call', 'mcp__docs', 'search']);
  await ask(model, { tools, input: [...user('hi'), ...response.output, { type: 'function_call_output', call_id: call.call_id, output: 'found' }] });
  const body = await sent(model);
  assert.equal(body.tools[0].function.name, 'mcp__docs__search');
  assert.equal(body.messages[1].tool_calls[0].function.name, 'mcp__docs__search');
});

test('hosted tools are named as dropped, and refused when forced', async () => {
  const model = unique('ok');
  const { response } = await once.responses.create(request(model, { tools: [{ type: 'web_search' }] })).withResponse();
  assert.match(response.headers.get('x-apiproxy-dropped'), /web_search/);
  assert.equal((await sent(model)).tools, undefined);
  await assert.rejects(ask('ok', { tools: [{ type: 'web_search' }], tool_choice: { type: 'web_search' } }), (e) => e instanceof OpenAI.BadRequestError && e.code === 'unsupported_tool');
});

// Pictures, structure, reasoning.
test('an image of 4 MB, and a file', async () => {
  const image = { type: 'input_image', image_url: `data:image/png;base64,${picture}` };
  const response = await demo.responses.create({ model: 'demo', input: user([{ type: 'input_text', text: 'what is this?' }, image]) });
  assert.match(response.output_text, /1 image\*\* \(4194304 bytes\)/);
  const model = unique('ok');
  await ask(model, { input: user([{ type: 'input_image', image_url: 'https://example.com/a.png', detail: 'low' }, { type: 'input_file', filename: 'a.pdf', file_data: 'data:application/pdf;base64,AA==' }]) });
  assert.deepEqual((await sent(model)).messages[0].content, [
    { type: 'image_url', image_url: { url: 'https://example.com/a.png', detail: 'low' } },
    { type: 'file', file: { filename: 'a.pdf', file_data: 'data:application/pdf;base64,AA==' } },
  ]);
});

test('structured output', async () => {
  const Booking = z.object({ name: z.string(), people: z.number().int(), kind: z.enum(['lunch', 'dinner']) });
  const body = { model: 'demo', input: 'A table for Ada Lovelace, 4 people', text: { format: zodTextFormat(Booking, 'booking') } };
  const want = { name: 'Ada Lovelace', people: 4, kind: 'lunch' };
  const parsed = await demo.responses.parse(body);
  assert.deepEqual(parsed.output_parsed, want);
  assert.equal(parsed.text.format.name, 'booking');
  assert.deepEqual((await demo.responses.stream(body).finalResponse()).output_parsed, want);
  const City = zodResponsesFunction({ name: 'weather', parameters: z.object({ city: z.string() }) });
  const called = await demo.responses.parse({ model: 'demo-tools', input: 'The weather in Paris?', tools: [City] });
  assert.deepEqual(called.output[0].parsed_arguments, { city: 'Paris' });
});

const sealed = { store: false, include: ['reasoning.encrypted_content'] };

for (const behaviour of ['reasoning', 'think-tags']) {
  test(`reasoning, ${behaviour}`, async () => {
    const streamed = await askStream(behaviour, { reasoning: { summary: 'auto' } });
    assert.equal(streamed.summary, thought);
    for (const { output } of [await ask(behaviour), streamed.response]) {
      assert.deepEqual(output.map((i) => i.type), ['reasoning', 'message']);
      assert.deepEqual(output[0].summary, [{ type: 'summary_text', text: thought }]);
      assert.ok(!('encrypted_content' in output[0]), 'encrypted_content that nobody asked for');
      assert.equal(output[1].content[0].text, 'You said: hi');
    }
  });
}

test('reasoning that the client keeps', async () => {
  for (const { output } of [await ask('reasoning', sealed), (await askStream('reasoning', sealed)).response]) assert.ok(output[0].encrypted_content);
});

for (const how of ['chained', 'sealed', 'bare']) {
  test(`an upstream gets its reasoning back, ${how}`, async () => {
    const model = unique('needs-reasoning');
    const tools = [tool('one')];
    const settings = how === 'sealed' ? sealed : {};
    for (const stream of [false, true]) {
      const first = stream ? (await askStream(model, { tools, ...settings })).response : await ask(model, { tools, ...settings });
      const output = { type: 'function_call_output', call_id: callsOf(first)[0].call_id, output: 'done' };
      const items = how === 'bare' ? callsOf(first) : first.output;
      const next = how === 'chained' ? { previous_response_id: first.id, input: [output] } : { input: [...user('hi'), ...items, output] };
      assert.equal((await ask(model, { tools, ...settings, ...next })).output_text, 'You said: done');
    }
  });
}

// The gateway remembers that its upstream signs calls: this goes through the other
// one, so that no other test sees it.
test('thought signatures of an upstream come back to it', async () => {
  const client = openai(plainURL);
  const request = { model: unique('signed'), tools: [tool('one')] };
  const first = await client.responses.create({ ...request, input: 'hi' });
  const second = await client.responses.create({ ...request, previous_response_id: first.id, input: [{ type: 'function_call_output', call_id: callsOf(first)[0].call_id, output: 'done' }] });
  assert.equal(second.output_text, 'You said: done');
});

// Usage and ends.
test('usage', async () => {
  for (const { usage } of [await ask('cached'), (await askStream('cached')).response]) {
    assert.deepEqual([usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens, usage.output_tokens_details.reasoning_tokens, usage.total_tokens], [100, 90, 5, 2, 105]);
  }
  for (const behaviour of ['usage-every', 'usage-finish']) assert.equal((await askStream(behaviour)).response.usage.input_tokens, 7, behaviour);
  assert.ok((await ask('no-usage')).usage.input_tokens > 0);
});

for (const [behaviour, reason] of [['length', 'max_output_tokens'], ['filter', 'content_filter']]) {
  test(`an answer that ended by ${behaviour}`, async () => {
    const streamed = await askStream(behaviour);
    assert.equal(streamed.types.at(-1), 'response.incomplete');
    for (const response of [await ask(behaviour), streamed.response]) {
      assert.deepEqual([response.status, response.incomplete_details, response.output.at(-1).status], ['incomplete', { reason }, 'incomplete']);
    }
  });
}

test('count tokens', async () => {
  const model = unique('ok'); // nothing is known of it that would correct the estimate
  const count = async (extra) => (await once.responses.inputTokens.count({ model, input: 'hello world', ...extra })).input_tokens;
  const plain = await count({});
  assert.equal(plain, 8);
  assert.ok((await count({ tools: [weather] })) > plain + 50);
});

// What is kept.
test('a chain', async () => {
  const say = (input, previous_response_id, stream = false) => demo.responses.create({ model: 'demo', input, previous_response_id, stream });
  const first = await say('my name is Ada');
  const { response: second } = await gather(await say('count to 3', first.id, true));
  const third = await say('what is my name?', second.id);
  assert.match(third.output_text, /\*\*Ada\*\*[^]*5 messages/);
  const branch = await say('what is my name?', first.id);
  assert.match(branch.output_text, /\*\*Ada\*\*[^]*3 messages/);
});

test('a response can be read the moment its stream ends', async () => {
  const model = unique('ok');
  for await (const e of await ask(model, { stream: true })) {
    if (e.type === 'response.completed') assert.deepEqual(await once.responses.retrieve(e.response.id), { ...e.response, output_text: 'You said: hi' });
  }
});

test('retrieve, list, replay, delete', async () => {
  const input = [{ role: 'user', content: 'one' }, { role: 'assistant', content: 'two' }, { role: 'user', content: 'three' }];
  const response = await ask('reasoning', { input });
  assert.deepEqual(await once.responses.retrieve(response.id), response);

  const items = [];
  for await (const item of once.responses.inputItems.list(response.id, { order: 'asc', limit: 2 })) items.push(item);
  assert.deepEqual(items.map((i) => [i.type, i.role]), [['message', 'user'], ['message', 'assistant'], ['message', 'user']]);
  assert.equal(new Set(items.map((i) => i.id)).size, 3);
  const newest = await once.responses.inputItems.list(response.id);
  assert.deepEqual(newest.data.map((i) => i.id), items.map((i) => i.id).reverse());

  const replayed = await gather(await once.responses.retrieve(response.id, { stream: true }));
  assert.equal(replayed.text, response.output_text);
  assert.deepEqual(replayed.response.output, response.output);
  assert.equal((await once.responses.stream({ response_id: response.id }).finalResponse()).output_text, response.output_text);

  await assert.rejects(once.responses.cancel(response.id), (e) => e instanceof OpenAI.BadRequestError && /background/.test(e.message));
  assert.deepEqual(await once.responses.delete(response.id), { id: response.id, object: 'response', deleted: true });
  await assert.rejects(once.responses.retrieve(response.id), OpenAI.NotFoundError);
  await assert.rejects(once.responses.delete(response.id), OpenAI.NotFoundError);
  await assert.rejects(once.responses.inputItems.list(response.id), OpenAI.NotFoundError);
});

test('what is not there to be continued', async () => {
  const mine = await ask('ok');
  const secret = await ask('ok', { store: false });
  assert.equal(secret.store, false);
  const gone = await ask('ok');
  const child = await ask('ok', { previous_response_id: gone.id });
  await once.responses.delete(gone.id);
  for (const [client, id] of [[bob({ maxRetries: 0 }), mine.id], [once, secret.id], [once, gone.id], [once, child.id], [once, 'resp_' + '0'.repeat(32)], [once, 'nonsense']]) {
    await assert.rejects(client.responses.create(request('ok', { previous_response_id: id })), (e) => e instanceof OpenAI.BadRequestError && e.code === 'previous_response_not_found' && e.param === 'previous_response_id');
  }
  for (const [client, id] of [[bob({ maxRetries: 0 }), mine.id], [once, secret.id]]) await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
});

test('items by reference', async () => {
  const model = unique('ok');
  const first = await ask('ok');
  await ask(model, { input: [...user('hi'), { type: 'item_reference', id: first.output[0].id }, ...user('again')] });
  assert.deepEqual((await sent(model)).messages.map((m) => m.content), ['hi', 'You said: hi', 'again']);
  await assert.rejects(ask('ok', { input: [{ type: 'item_reference', id: 'msg_nothing' }] }), (e) => e instanceof OpenAI.BadRequestError && /msg_nothing/.test(e.message));
});

// Errors.
const failures = [
  { behaviour: '400', as: OpenAI.BadRequestError, status: 400, code: 'unsupported_value' },
  { behaviour: '404', as: OpenAI.NotFoundError, status: 404, code: 'model_not_found' },
  { behaviour: '409', as: OpenAI.ConflictError, status: 409 },
  { behaviour: '422', as: OpenAI.BadRequestError, status: 400 },
  { behaviour: 'fastapi-422', as: OpenAI.BadRequestError, status: 400 },
  { behaviour: '429', as: OpenAI.RateLimitError, status: 429, code: 'rate_limit_exceeded' },
  { behaviour: 'quota', as: OpenAI.RateLimitError, status: 429, code: 'insufficient_quota' },
  { behaviour: 'rate-first', as: OpenAI.RateLimitError, status: 429 },
  { behaviour: 'error-200', as: OpenAI.RateLimitError, status: 429, code: 'rate_limit_exceeded' },
  { behaviour: '500', as: OpenAI.InternalServerError, status: 500 },
  { behaviour: '503', as: OpenAI.InternalServerError, status: 503, code: 'server_is_overloaded' },
  { behaviour: 'overflow', as: OpenAI.BadRequestError, status: 400, code: 'context_length_exceeded' },
  { behaviour: 'filtered', as: OpenAI.BadRequestError, status: 400, code: 'content_filter' },
  { behaviour: '401', as: OpenAI.InternalServerError, status: 502, code: 'upstream_auth' },
  { behaviour: '403', as: OpenAI.InternalServerError, status: 502, code: 'upstream_auth' },
  ...['html-502', 'html-404', 'html-200', 'cut-json', 'empty-choices', 'redirect', 'hang-up'].map((behaviour) => ({ behaviour, as: OpenAI.InternalServerError, status: 502 })),
];
for (const { behaviour, as, status, code } of failures) {
  for (const stream of [false, true]) {
    test(`error ${behaviour}, stream ${stream}`, async () => {
      await assert.rejects(ask(behaviour, { stream }), (e) => {
        assert.ok(e instanceof as, `${e.constructor.name}: ${e.message}`);
        assert.equal(e.status, status);
        if (code) assert.equal(e.code, code);
        assert.ok(e.error?.message && e.error?.type, `no OpenAI error: ${JSON.stringify(e.error)}`);
        assert.doesNotMatch(JSON.stringify(e.error), /nginx|10\.1\.2\.3|<html/);
        assert.ok(!JSON.stringify(e.error).includes(upstreamKey), 'the upstream key is in the error');
        return true;
      });
    });
  }
}

test('refusals by the gateway', async () => {
  for (const [body, param] of [
    ['{"model":'],
    ['[]'],
    [{ input: 'hi' }, 'model'],
    [{ model: 'ok' }, 'input'],
    [{ model: 'ok', input: 7 }, 'input'],
    [{ model: 'ok', input: 'hi', max_output_tokens: 0 }, 'max_output_tokens'],
    [{ model: 'ok', input: 'hi', background: true }, 'background'],
    [{ model: 'ok', input: 'hi', conversation: 'conv_1' }, 'conversation'],
    [{ model: 'ok', input: 'hi', prompt: { id: 'p' } }, 'prompt'],
    [{ model: 'ok', input: [{ type: 'smell' }] }, 'input[0].type'],
    [{ model: 'ok', input: 'hi', tools: [tool('f'), tool('f')] }],
  ]) {
    const answer = await send(gatewayURL, '/v1/responses', body);
    const { error } = answer.json();
    assert.deepEqual([answer.status, error.type], [400, 'invalid_request_error'], JSON.stringify(body));
    if (param) assert.equal(error.param, param, JSON.stringify(body));
  }
});

for (const [behaviour, code] of [['cut-stream'], ['early-end'], ['error-in-stream', 'server_error']]) {
  test(`${behaviour} is a failed response after what came`, async () => {
    const { text, response, types } = await askStream(behaviour);
    assert.equal(text, 'You said: ');
    assert.equal(types.at(-1), 'response.failed');
    assert.equal(response.status, 'failed');
    assert.ok(response.error.message);
    assert.equal(typeof response.error.code, 'string');
    if (code) assert.equal(response.error.code, code);
    assert.equal((await once.responses.stream(request(behaviour)).finalResponse()).status, 'failed');
  });
}

test('an error after a whole call stays an error', async () => {
  const { types } = await askStream('call-then-error', { tools: [tool('one')] });
  assert.equal(types.at(-1), 'response.failed');
});

test('a failed response cannot be continued', async () => {
  const { response } = await askStream('cut-stream');
  await assert.rejects(ask('ok', { previous_response_id: response.id }), OpenAI.BadRequestError);
});

test('an answer of the demo that breaks off', async () => {
  assert.equal((await demo.responses.stream({ model: 'demo-broken', input: 'hi' }).finalResponse()).status, 'failed');
  await assert.rejects(demo.responses.create({ model: 'demo-broken', input: 'hi' }), (e) => e instanceof OpenAI.InternalServerError && e.status === 502);
});

// Retries, which the SDK makes by what the gateway tells it.
for (const [behaviour, attempts] of [['retry-429-ms', 2], ['retry-500', 3], ['retry-hang-up', 2]]) {
  test(`${behaviour} succeeds in the end`, async () => {
    const model = unique(behaviour);
    assert.equal((await openai(gatewayURL, { maxRetries: 2 }).responses.create({ model, input: 'hi' })).output_text, 'You said: hi');
    assert.equal((await seen(model)).length, attempts);
  });
}
for (const [behaviour, attempts] of [['429', 3], ['quota', 1], ['401', 1], ['400', 1]]) {
  test(`${behaviour} is asked ${attempts} times`, async () => {
    const model = unique(behaviour);
    await assert.rejects(openai(gatewayURL, { maxRetries: 2 }).responses.create({ model, input: 'hi' }), OpenAI.APIError);
    assert.equal((await seen(model)).length, attempts);
  });
}

// The upstream's ways.
for (const behaviour of ['ok', 'json-for-stream', 'sse-for-json', 'text-plain', 'usage-every', 'usage-finish', 'crlf', 'comments', 'no-space', 'byte-by-byte', 'no-done', 'vendor-fields']) {
  test(`answers of ${behaviour}`, async () => {
    const said = 'hällo 你好 😀 <b>';
    const { text, response } = await askStream(behaviour, { input: said });
    assert.deepEqual([text, response.status], [`You said: ${said}`, 'completed']);
    assert.equal((await ask(behaviour, { input: said })).output_text, `You said: ${said}`);
  });
}

test('an event of 5 MB', async () => {
  assert.equal((await askStream('big-event')).text, 'abcdefghij'.repeat(524288));
});

test('a raw stream names every event and ends in [DONE]', async () => {
  const { text, headers } = await send(gatewayURL, '/v1/responses', request('ok', { stream: true }));
  assert.match(headers.get('content-type'), /^text\/event-stream/);
  const list = events(text);
  assert.equal(list.pop().data, '[DONE]');
  for (const { event, data } of list) assert.equal(event, data.type);
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
    const asked = ask(model, { stream }, { signal: controller.signal });
    setTimeout(() => controller.abort(), 300);
    await assert.rejects(asked, OpenAI.APIUserAbortError);
    await assertAborted(model, Date.now());
  }
});

test('an upstream that stays silent is a 504', async () => {
  await assert.rejects(openai(plainURL).responses.create(request('slow-first')), (e) => e instanceof OpenAI.InternalServerError && e.status === 504 && e.code === 'upstream_timeout');
});

// Sessions.
for (const [from, to] of [...Object.keys(speakers).map((to) => ['responses', to]), ['chat', 'responses'], ['chat', 'chat']]) {
  test(`a session begun in ${from} continues in ${to}`, () => assertContinues(`node-${randomUUID()}`, from, to));
}

test('with a chain, the session only records', async () => {
  const options = { headers: { 'x-session-id': randomUUID() } };
  const first = await ask('ok', { input: 'one' }, options);
  await ask('ok', { input: 'aside' }, options);
  const model = unique('ok');
  await ask(model, { input: 'two', previous_response_id: first.id }, options);
  assert.deepEqual((await sent(model)).messages.map((m) => m.content), ['one', 'You said: one', 'two']);
});
