// The official SDK against the gateway in demo mode.

import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { collect, context, demo, demoURL, user } from './helper.mjs';

const client = demo();

test('chat', async () => {
  const { data, response, request_id } = await client.chat.completions.create({ model: 'demo', messages: user('hi') }).withResponse();
  assert.equal(data.object, 'chat.completion');
  assert.equal(data.model, 'demo');
  assert.match(data.choices[0].message.content, /^Hello!/);
  assert.equal(data.choices[0].finish_reason, 'stop');
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.equal(response.headers.get('x-apiproxy-fidelity'), 'exact');
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
  assert.ok(request_id);
});

test('the request arrives as the SDK wrote it', async () => {
  const body = { model: 'demo-echo', messages: user('<b> é 你好 \u2028'), seed: 42, x_unknown: { b: [1.5], a: null } };
  const completion = await client.chat.completions.create(body);
  assert.equal(completion.choices[0].message.content, JSON.stringify(body));
});

test('stream', async () => {
  const stream = await client.chat.completions.create({ model: 'demo', messages: user('count to 20'), stream: true });
  const { text, finish, chunks } = await collect(stream);
  assert.equal(text, Array.from({ length: 20 }, (_, i) => i + 1).join(' '));
  assert.equal(finish, 'stop');
  assert.ok(chunks.every((c) => c.object === 'chat.completion.chunk' && c.usage === undefined && c.choices.length === 1));
});

test('stream with usage', async () => {
  const stream = await client.chat.completions.create({ model: 'demo', messages: user('count to 5'), stream: true, stream_options: { include_usage: true } });
  const { chunks } = await collect(stream);
  assert.equal(chunks.at(-1).usage.completion_tokens, 5);
  assert.deepEqual(chunks.at(-1).choices, []);
});

test('tokens arrive as they are made', async () => {
  const started = Date.now();
  const arrivals = [];
  const stream = await client.chat.completions.create({ model: 'demo', messages: user('count to 40'), stream: true });
  for await (const _ of stream) arrivals.push(Date.now() - started);
  assert.ok(new Set(arrivals).size > 10, `40 tokens arrived at ${new Set(arrivals).size} moments`);
});

test('stream helper', async () => {
  const pieces = [];
  const stream = client.chat.completions.stream({ model: 'demo', messages: user('count to 5') }).on('content', (delta) => pieces.push(delta));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, '1 2 3 4 5');
  assert.equal(pieces.join(''), '1 2 3 4 5');
});

test('n, stop and max_tokens', async () => {
  const two = await client.chat.completions.create({ model: 'demo', messages: user('count to 9'), n: 2 });
  assert.deepEqual(two.choices.map((c) => [c.index, c.message.content.endsWith('8 9')]), [[0, true], [1, true]]);
  const streamed = await collect(await client.chat.completions.create({ model: 'demo', messages: user('count to 9'), n: 2, stream: true }));
  assert.deepEqual([...new Set(streamed.chunks.map((c) => c.choices[0].index))], [0, 1]);
  const stopped = await client.chat.completions.create({ model: 'demo', messages: user('count to 9'), stop: ['4'] });
  assert.equal(stopped.choices[0].message.content, '1 2 3 ');
  const limited = await client.chat.completions.create({ model: 'demo', messages: user('count to 9'), max_completion_tokens: 2 });
  assert.equal(limited.choices[0].finish_reason, 'length');
});

test('logprobs', async () => {
  const completion = await client.chat.completions.create({ model: 'demo', messages: user('count to 3'), logprobs: true, top_logprobs: 2 });
  const tokens = completion.choices[0].logprobs.content;
  assert.equal(tokens.map((t) => t.token).join(''), '1 2 3');
  assert.equal(tokens[0].top_logprobs.length, 2);
});

test('reasoning', async () => {
  const completion = await client.chat.completions.create({ model: 'demo-reasoning', messages: user('hi') });
  assert.match(completion.choices[0].message.reasoning_content, /conversation/);
  assert.ok(completion.usage.completion_tokens_details.reasoning_tokens > 0);
  const { chunks } = await collect(await client.chat.completions.create({ model: 'demo-reasoning', messages: user('hi'), stream: true }));
  assert.match(chunks.map((c) => c.choices[0].delta.reasoning_content ?? '').join(''), /conversation/);
});

// weather is a tool for the SDK's runner; calls collects its arguments.
const weather = (calls) => ({
  type: 'function',
  function: {
    name: 'weather',
    description: 'the weather in a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    parse: JSON.parse,
    function: (args) => {
      calls.push(args);
      return '18 degrees';
    },
  },
});

test('tools, run by the SDK', async () => {
  const calls = [];
  const runner = client.chat.completions.runTools({ model: 'demo-tools', messages: user('The weather in Paris?'), tools: [weather(calls)] });
  assert.match(await runner.finalContent(), /> 18 degrees/);
  assert.deepEqual(calls, [{ city: 'Paris' }]);
});

test('tools, streamed and run by the SDK', async () => {
  const calls = [];
  const runner = client.chat.completions.runTools({ model: 'demo-tools', messages: user('The weather in New York?'), tools: [weather(calls)], stream: true });
  assert.match(await runner.finalContent(), /> 18 degrees/);
  assert.deepEqual(calls, [{ city: 'New York' }]);
});

test('parallel tool calls', async () => {
  const tools = ['one', 'two'].map((name) => ({ type: 'function', function: { name, parameters: { type: 'object', properties: {} } } }));
  const messages = user('call both');
  const final = await client.chat.completions.stream({ model: 'demo-tools', messages, tools }).finalChatCompletion();
  const { message, finish_reason } = final.choices[0];
  assert.equal(finish_reason, 'tool_calls');
  assert.deepEqual(message.tool_calls.map((c) => [c.function.name, c.function.arguments]), [['one', '{}'], ['two', '{}']]);
  const results = message.tool_calls.map((c) => ({ role: 'tool', tool_call_id: c.id, content: `result of ${c.function.name}` }));
  const answer = await client.chat.completions.create({ model: 'demo-tools', tools, messages: [...messages, message, ...results] });
  assert.match(answer.choices[0].message.content, /> result of one\n> result of two/);
});

test('structured output', async () => {
  const Booking = z.object({ name: z.string(), people: z.number().int(), kind: z.enum(['lunch', 'dinner']), notes: z.array(z.string()) });
  const request = { model: 'demo', messages: user('A table for Ada Lovelace, 4 people'), response_format: zodResponseFormat(Booking, 'booking') };
  const want = { name: 'Ada Lovelace', people: 4, kind: 'lunch', notes: ['Ada Lovelace'] };
  const parsed = await client.chat.completions.parse(request);
  assert.deepEqual(parsed.choices[0].message.parsed, want);
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, want);
});

test('an image of 4 MB', async () => {
  const url = 'data:image/png;base64,' + randomBytes(4 << 20).toString('base64');
  const completion = await client.chat.completions.create({
    model: 'demo',
    messages: [{ role: 'user', content: [{ type: 'text', text: 'what is this?' }, { type: 'image_url', image_url: { url } }] }],
  });
  assert.match(completion.choices[0].message.content, /1 image\*\* \(4194304 bytes\)/);
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes('demo') && ids.includes('demo-tools'), ids.join());
  assert.equal((await client.models.retrieve('demo')).owned_by, 'apiproxy-demo');
  await assert.rejects(client.models.retrieve('org/nothing'), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
});

test('embeddings', async () => {
  const input = ['the cat sat', 'the cat ran'];
  const packed = await client.embeddings.create({ model: 'demo', input });
  const listed = await client.embeddings.create({ model: 'demo', input, encoding_format: 'float' });
  assert.equal(packed.data.length, 2);
  assert.equal(packed.data[0].embedding.length, 16);
  packed.data.forEach((d, i) => d.embedding.forEach((v, j) => assert.ok(Math.abs(v - listed.data[i].embedding[j]) < 1e-6)));
});

test('upload of 8 MB', async () => {
  const content = randomBytes(8 << 20);
  const file = await client.files.create({ file: await toFile(content, 'batch.jsonl'), purpose: 'batch' });
  assert.equal(file.bytes, content.length);
  assert.equal(file.filename, 'batch.jsonl');
  assert.equal(file.id, 'file-' + createHash('sha256').update(content).digest('hex').slice(0, 24));
});

test('legacy completions', async () => {
  const whole = await client.completions.create({ model: 'demo', prompt: 'count to 4' });
  assert.equal(whole.choices[0].text, '1 2 3 4');
  let text = '';
  for await (const chunk of await client.completions.create({ model: 'demo', prompt: 'count to 4', stream: true })) text += chunk.choices[0].text;
  assert.equal(text, '1 2 3 4');
});

test('errors', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'nothing', messages: user('hi') }), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found');
  await assert.rejects(client.chat.completions.create({ model: 'demo', messages: [] }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'messages');
  await assert.rejects(demo({ apiKey: 'demo-' }).chat.completions.create({ model: 'demo', messages: user('hi') }), (e) => e instanceof OpenAI.AuthenticationError && e.code === 'invalid_api_key');
});

test('a rate limit is tried again after Retry-After', async () => {
  const started = Date.now();
  await assert.rejects(demo({ maxRetries: 1 }).chat.completions.create({ model: 'demo-429', messages: user('hi') }), (e) => e instanceof OpenAI.RateLimitError && e.code === 'rate_limit_exceeded');
  assert.ok(Date.now() - started >= 1000, 'the SDK did not see Retry-After');
});

test('an answer that breaks off', async () => {
  const once = demo({ maxRetries: 0 });
  const stream = await once.chat.completions.create({ model: 'demo-broken', messages: user('hi'), stream: true });
  let text = '';
  await assert.rejects(
    async () => {
      for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
    },
    (e) => e instanceof OpenAI.APIError,
  );
  assert.match(text, /^Hello!/);
  await assert.rejects(once.chat.completions.create({ model: 'demo-broken', messages: user('hi') }), (e) => e instanceof OpenAI.InternalServerError && e.status === 502);
});

for (const stream of [false, true]) {
  test(`a session continues, stream ${stream}`, async () => {
    const session = `node-${randomUUID()}`;
    const chatting = demo({ defaultHeaders: { 'X-Session-Id': session } });
    const say = async (text) => {
      if (!stream) return (await chatting.chat.completions.create({ model: 'demo', messages: user(text) })).choices[0].message.content;
      return (await collect(await chatting.chat.completions.create({ model: 'demo', messages: user(text), stream: true }))).text;
    };
    await say('my name is Ada');
    const answer = await say('what is my name?');
    assert.match(answer, /\*\*Ada\*\*/);
    assert.match(answer, /3 messages/);
    const { status, body } = await context(demoURL, 'demo', session);
    assert.equal(status, 200);
    assert.equal(body.session_id, session);
    assert.deepEqual(body.messages.map((m) => m.role), ['user', 'assistant', 'user', 'assistant']);
    assert.equal(body.messages[2].content, 'what is my name?');
    assert.equal(body.messages[3].content, answer);

    const url = `${demoURL}/context/${session}`;
    const removed = await fetch(url, { method: 'DELETE', headers: { authorization: 'Bearer demo' } });
    assert.ok(removed.ok, `DELETE answers ${removed.status}`);
    assert.equal((await context(demoURL, 'demo', session)).status, 404);
    assert.match(await say('what is my name?'), /not told me/);
  });
}

test('a session takes a tool round trip', async () => {
  const session = `node-${randomUUID()}`;
  const chatting = demo({ defaultHeaders: { 'X-Session-Id': session } });
  const calls = [];
  const runner = chatting.chat.completions.runTools({ model: 'demo-tools', messages: user('The weather in Paris?'), tools: [weather(calls)] });
  await runner.finalContent();
  const { body } = await context(demoURL, 'demo', session);
  assert.deepEqual(body.messages.map((m) => m.role), ['user', 'assistant', 'tool', 'assistant']);
  assert.equal(body.messages[1].tool_calls[0].id, body.messages[2].tool_call_id);
  const next = await chatting.chat.completions.create({ model: 'demo', messages: user('thanks') });
  assert.match(next.choices[0].message.content, /5 messages/);
});

test('a bare tool message answers the recorded call', async () => {
  const chatting = demo({ defaultHeaders: { 'X-Session-Id': `node-${randomUUID()}` } });
  const tools = [{ type: 'function', function: { name: 'clock', parameters: { type: 'object', properties: {} } } }];
  const first = await chatting.chat.completions.create({ model: 'demo-tools', messages: user('the time?'), tools });
  const id = first.choices[0].message.tool_calls[0].id;
  const second = await chatting.chat.completions.create({ model: 'demo-tools', tools, messages: [{ role: 'tool', tool_call_id: id, content: 'noon' }] });
  assert.match(second.choices[0].message.content, /> noon/);
});

test('a call that nobody answered does not break the next turn', async () => {
  const chatting = demo({ defaultHeaders: { 'X-Session-Id': `node-${randomUUID()}` } });
  const tools = [{ type: 'function', function: { name: 'clock', parameters: { type: 'object', properties: {} } } }];
  await chatting.chat.completions.create({ model: 'demo-tools', messages: user('the time?'), tools });
  const next = await chatting.chat.completions.create({ model: 'demo', messages: user('never mind') });
  assert.match(next.choices[0].message.content, /> never mind/);
});
