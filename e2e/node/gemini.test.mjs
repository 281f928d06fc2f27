// The official Google SDK against the gateway: in demo mode, and in front of an
// upstream that misbehaves.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { ApiError, FunctionCallingConfigMode, ThinkingLevel, Type } from '@google/genai';
import { z } from 'zod';
import { aliceKey, assertAborted, demoURL, gatewayURL, plainURL, seen, seenBody, unique, upstreamKey } from './helper.mjs';
import { assertContinues, assertExtends, citySchema, events, google, noArguments, picture, send, sent, speakers, thought } from './dialects.mjs';

const demo = google(demoURL);
const once = google(gatewayURL);
const weather = { name: 'weather', description: 'the weather in a city', parametersJsonSchema: citySchema };
const declare = (...names) => [{ functionDeclarations: names.map((name) => ({ name, parametersJsonSchema: noArguments })) }];
const turn = (role, ...parts) => ({ role, parts: parts.map((p) => (typeof p === 'string' ? { text: p } : p)) });

const request = (behaviour, config, contents = 'hi') => ({ model: behaviour.includes('/') ? behaviour : unique(behaviour), contents, config });
const ask = (...args) => once.models.generateContent(request(...args));

// askStream reads a stream as the SDK hands it on. Every chunk must have a
// candidate with something in it: the SDK's chats drop the turn otherwise.
async function askStream(...args) {
  return gather(await once.models.generateContentStream(request(...args)));
}
async function gather(stream) {
  const chunks = [];
  for await (const c of stream) {
    assert.ok(c.candidates[0].content.parts.length > 0, JSON.stringify(c));
    assert.equal(c.candidates[0].content.role, 'model');
    chunks.push(c);
  }
  assert.ok(chunks.slice(0, -1).every((c) => !c.candidates[0].finishReason));
  const parts = chunks.flatMap((c) => c.candidates[0].content.parts);
  const join = (thoughts) => parts.filter((p) => (p.thought ?? false) === thoughts).map((p) => p.text ?? '').join('');
  const last = chunks.at(-1);
  return { chunks, parts, text: join(false), thoughts: join(true), finish: last.candidates[0].finishReason, usage: last.usageMetadata, calls: parts.filter((p) => p.functionCall).map((p) => p.functionCall) };
}

test('text', async () => {
  const answer = await demo.models.generateContent({ model: 'demo', contents: 'hi' });
  assert.match(answer.text, /^Hello!/);
  assert.deepEqual([answer.candidates.length, answer.candidates[0].content.role, answer.candidates[0].finishReason], [1, 'model', 'STOP']);
  assert.equal(answer.modelVersion, 'demo');
  assert.ok(answer.responseId);
  const { promptTokenCount, candidatesTokenCount, totalTokenCount } = answer.usageMetadata;
  assert.ok(promptTokenCount > 0 && candidatesTokenCount > 0);
  assert.equal(totalTokenCount, promptTokenCount + candidatesTokenCount);
  assert.equal(answer.sdkHttpResponse.headers['x-apiproxy-fidelity'], 'converted');
});

for (const apiVersion of ['v1', 'v1beta', 'v1alpha']) {
  test(`under /${apiVersion}`, async () => {
    const client = google(gatewayURL, { apiVersion });
    assert.equal((await client.models.generateContent(request('ok'))).text, 'You said: hi');
    assert.equal((await gather(await client.models.generateContentStream(request('ok')))).text, 'You said: hi');
    assert.ok((await client.models.countTokens({ model: 'plain', contents: 'hi' })).totalTokens > 0);
    assert.equal((await client.models.get({ model: 'org/team/model:b' })).name, 'models/org/team/model:b');
  });
}

test('a stream', async () => {
  const { text, finish, usage, chunks } = await gather(await demo.models.generateContentStream({ model: 'demo', contents: 'count to 20' }));
  assert.equal(text, Array.from({ length: 20 }, (_, i) => i + 1).join(' '));
  assert.equal(finish, 'STOP');
  assert.equal(usage.candidatesTokenCount, 20);
  assert.ok(chunks.length >= 20, `${chunks.length} chunks`);
  assert.ok(chunks.every((c) => c.responseId === chunks[0].responseId && c.modelVersion === 'demo'));
});

for (const stream of [false, true]) {
  test(`a chat, stream ${stream}`, async () => {
    const chat = demo.chats.create({ model: 'demo', config: { systemInstruction: 'Be short.' } });
    const say = async (message) => (stream ? (await gather(await chat.sendMessageStream({ message }))).text : (await chat.sendMessage({ message })).text);
    await say('my name is Ada');
    assert.match(await say('what is my name?'), /\*\*Ada\*\*[^]*4 messages/);
    const roles = chat.getHistory(true).map((c) => c.role);
    assert.deepEqual(roles.filter((r, i) => r !== roles[i - 1]), ['user', 'model', 'user', 'model']);
  });
}

test('the whole configuration', async () => {
  const model = unique('ok');
  await once.models.generateContent({
    model,
    contents: [turn('user', 'a'), turn('model', 'b', 'c'), turn('user', '<b> é 你好 \u2028')],
    config: {
      systemInstruction: 'Be short.', temperature: 0.5, topP: 0.9, topK: 40, maxOutputTokens: 77, stopSequences: ['END'], seed: 7, presencePenalty: 0.1, frequencyPenalty: 0.2,
      thinkingConfig: { thinkingBudget: 512, thinkingLevel: ThinkingLevel.HIGH },
      safetySettings: [{ category: 'HARM_CATEGORY_HARASSMENT', threshold: 'BLOCK_NONE' }],
    },
  });
  assert.deepEqual(await sent(model), {
    model,
    messages: [
      { role: 'system', content: 'Be short.' },
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'bc' },
      { role: 'user', content: '<b> é 你好 \u2028' },
    ],
    temperature: 0.5, top_p: 0.9, top_k: 40, seed: 7, presence_penalty: 0.1, frequency_penalty: 0.2, max_tokens: 77, stop: ['END'], reasoning_effort: 'high',
  });
  for (const [thinkingBudget, effort] of [[0, 'none'], [-1, undefined], [512, 'low'], [8192, 'medium']]) {
    const other = unique('ok');
    await ask(other, { thinkingConfig: { thinkingBudget } });
    assert.equal((await sent(other)).reasoning_effort, effort, `budget ${thinkingBudget}`);
  }
});

test('limit, stop and candidates', async () => {
  const say = (config) => demo.models.generateContent({ model: 'demo', contents: 'count to 9', config });
  assert.equal((await say({ stopSequences: ['4'] })).text, '1 2 3 ');
  assert.equal((await say({ maxOutputTokens: 2 })).candidates[0].finishReason, 'MAX_TOKENS');
  const two = await say({ candidateCount: 2 });
  assert.deepEqual(two.candidates.map((c) => [c.index ?? 0, c.content.parts[0].text.endsWith('8 9')]), [[0, true], [1, true]]);
  const logged = await say({ responseLogprobs: true, logprobs: 2 });
  assert.equal(logged.candidates[0].logprobsResult.chosenCandidates.map((t) => t.token).join(''), '1 2 3 4 5 6 7 8 9');
});

// Tools.
test('a tool round trip', async () => {
  const config = { tools: [{ functionDeclarations: [weather] }] };
  const contents = [turn('user', 'The weather in Paris?')];
  const first = await demo.models.generateContent({ model: 'demo-tools', contents, config });
  const [call] = first.functionCalls;
  assert.deepEqual([call.name, call.args, first.candidates[0].finishReason], ['weather', { city: 'Paris' }, 'STOP']);
  contents.push(first.candidates[0].content, turn('user', { functionResponse: { id: call.id, name: call.name, response: { output: '18 degrees' } } }));
  assert.match((await demo.models.generateContent({ model: 'demo-tools', contents, config })).text, /> 18 degrees/);
});

// callable is a tool that the SDK calls by itself.
const callable = (calls) => ({
  tool: async () => ({ functionDeclarations: [weather] }),
  callTool: async (list) => list.map(({ id, name, args }) => {
    calls.push(args);
    return { functionResponse: { id, name, response: { result: '18 degrees' } } };
  }),
});

test('tools, called by the SDK', async () => {
  const calls = [];
  const config = { tools: [callable(calls)] };
  const answer = await demo.models.generateContent({ model: 'demo-tools', contents: 'The weather in Paris?', config });
  assert.match(answer.text, /> 18 degrees/);
  let text = '';
  for await (const chunk of await demo.models.generateContentStream({ model: 'demo-tools', contents: 'The weather in New York?', config })) text += chunk.text ?? '';
  assert.match(text, /> 18 degrees/);
  assert.deepEqual(calls, [{ city: 'Paris' }, { city: 'New York' }]);
  const chat = demo.chats.create({ model: 'demo-tools', config });
  assert.match((await chat.sendMessage({ message: 'The weather in Rome?' })).text, /> 18 degrees/);
  assert.match((await chat.sendMessage({ message: 'And in Oslo?' })).text, /> 18 degrees/);
});

for (const behaviour of ['calls', 'calls-whole', 'text-and-calls']) {
  test(`parallel calls, ${behaviour}`, async () => {
    const config = { tools: declare('one', 'two') };
    const model = unique(behaviour);
    const whole = await once.models.generateContent({ model, contents: 'call both', config });
    const streamed = await gather(await once.models.generateContentStream({ model, contents: 'call both', config }));
    assert.equal(streamed.chunks.filter((c) => c.functionCalls).length, 1, 'the calls came in pieces');
    assert.equal(streamed.text, behaviour === 'text-and-calls' ? 'Let me see.' : '');
    for (const calls of [whole.functionCalls, streamed.calls]) {
      assert.deepEqual(calls.map((c) => [c.name, Object.keys(c.args)]), [['one', ['b', 'a']], ['two', ['b', 'a']]]);
      assert.equal(new Set(calls.map((c) => c.id)).size, 2);
      const results = calls.map(({ id, name }) => ({ functionResponse: { id, name, response: { output: `result of ${name}` } } }));
      await once.models.generateContent({ model, config, contents: [turn('user', 'call both'), turn('model', ...calls.map((functionCall) => ({ functionCall }))), turn('user', ...results, 'and?')] });
      const { messages } = await sent(model);
      assert.deepEqual(messages.map((m) => m.role), ['user', 'assistant', 'tool', 'tool', 'user']);
      assert.deepEqual(messages[1].tool_calls.map((c) => c.id), calls.map((c) => c.id));
      assert.deepEqual(messages.slice(2).map((m) => m.content), ['result of one', 'result of two', 'and?']);
    }
  });
}

test('calls without ids pair up', async () => {
  const model = unique('ok');
  const call = (name, args) => ({ functionCall: { name, args } });
  const result = (name, output) => ({ functionResponse: { name, response: { output } } });
  await ask(model, { tools: declare('f', 'g') }, [turn('user', 'w?'), turn('model', call('f', { b: 1, a: 2 }), call('g', {}), call('f', { b: 3 })), turn('user', result('f', 'first'), result('f', 'third')), turn('user', result('g', 'second'))]);
  const { messages: [, { tool_calls: calls }, ...results] } = await sent(model);
  assert.equal(calls[0].id, '4mh4tyn7x');
  assert.equal(calls[0].function.arguments, '{"b":1,"a":2}');
  assert.deepEqual(results.map((m) => [m.tool_call_id, m.content]), [[calls[0].id, 'first'], [calls[2].id, 'third'], [calls[1].id, 'second']]);
});

test('tool choice', async () => {
  const model = unique('calls');
  const say = async (functionCallingConfig) => {
    await ask(model, { tools: declare('one', 'two', 'three'), toolConfig: { functionCallingConfig } });
    const { tools, tool_choice } = await sent(model);
    return [tools.map((t) => t.function.name).join(), tool_choice];
  };
  const { ANY, AUTO, NONE } = FunctionCallingConfigMode;
  assert.deepEqual(await say({ mode: AUTO }), ['one,two,three', undefined]);
  assert.deepEqual(await say({ mode: NONE }), ['one,two,three', 'none']);
  assert.deepEqual(await say({ mode: ANY }), ['one,two,three', 'required']);
  assert.deepEqual(await say({ mode: ANY, allowedFunctionNames: ['two'] }), ['one,two,three', { type: 'function', function: { name: 'two' } }]);
  assert.deepEqual(await say({ mode: ANY, allowedFunctionNames: ['one', 'two'] }), ['one,two', 'required']);
});

test('a Gemini schema becomes JSON Schema', async () => {
  const model = unique('ok');
  const parameters = { type: Type.OBJECT, properties: { type: { type: Type.STRING, nullable: true }, n: { type: Type.ARRAY, maxItems: '3', items: { type: Type.INTEGER } } } };
  await ask(model, { tools: [{ functionDeclarations: [{ name: 'f', parameters }] }] });
  assert.equal(
    JSON.stringify((await sent(model)).tools[0].function.parameters),
    '{"type":"object","properties":{"type":{"type":["string","null"]},"n":{"type":"array","maxItems":3,"items":{"type":"integer"}}}}',
  );
});

test('hosted tools are named as dropped', async () => {
  const model = unique('ok');
  const answer = await ask(model, { tools: [{ googleSearch: {} }] });
  assert.match(answer.sdkHttpResponse.headers['x-apiproxy-dropped'], /googleSearch/);
  assert.equal((await sent(model)).tools, undefined);
});

// Pictures, structure, thinking.
test('an image of 4 MB, and one by address', async () => {
  const answer = await demo.models.generateContent({ model: 'demo', contents: [turn('user', { inlineData: { mimeType: 'image/png', data: picture } }, 'what is this?')] });
  assert.match(answer.text, /1 image\*\* \(4194304 bytes\)/);
  const model = unique('ok');
  await ask(model, {}, [turn('user', 'this?', { fileData: { fileUri: 'https://example.com/a.png', mimeType: 'image/png' } })]);
  assert.deepEqual((await sent(model)).messages[0].content, [{ type: 'text', text: 'this?' }, { type: 'image_url', image_url: { url: 'https://example.com/a.png' } }]);
  await assert.rejects(ask('ok', {}, [turn('user', { fileData: { fileUri: 'gs://bucket/a.mp4', mimeType: 'video/mp4' } })]), (e) => e.status === 400 && /gs/.test(e.message));
});

test('structured output', async () => {
  const Booking = z.object({ name: z.string(), people: z.number().int(), kind: z.enum(['lunch', 'dinner']) });
  const want = { name: 'Ada Lovelace', people: 4, kind: 'lunch' };
  const responseSchema = {
    type: Type.OBJECT, required: ['name', 'people', 'kind'], propertyOrdering: ['name', 'people', 'kind'],
    properties: { kind: { type: Type.STRING, format: 'enum', enum: ['lunch', 'dinner'] }, name: { type: Type.STRING }, people: { type: Type.INTEGER } },
  };
  for (const schema of [{ responseJsonSchema: z.toJSONSchema(Booking) }, { responseSchema }]) {
    const config = { responseMimeType: 'application/json', ...schema };
    const answer = await demo.models.generateContent({ model: 'demo', contents: 'A table for Ada Lovelace, 4 people', config });
    assert.deepEqual(Booking.parse(JSON.parse(answer.text)), want);
  }
  const free = await demo.models.generateContent({ model: 'demo', contents: 'hi', config: { responseMimeType: 'application/json' } });
  assert.match(JSON.parse(free.text).answer, /^Hello!/);
});

for (const behaviour of ['reasoning', 'think-tags']) {
  test(`thinking, ${behaviour}`, async () => {
    const config = { thinkingConfig: { includeThoughts: true } };
    const whole = await ask(behaviour, config);
    assert.deepEqual(whole.candidates[0].content.parts.map((p) => [p.text, p.thought ?? false]), [[thought, true], ['You said: hi', false]]);
    const streamed = await askStream(behaviour, config);
    assert.deepEqual([streamed.thoughts, streamed.text], [thought, 'You said: hi']);
    const unasked = await askStream(behaviour);
    assert.deepEqual([unasked.thoughts, unasked.text], ['', 'You said: hi']);
    assert.equal((await ask(behaviour)).candidates[0].content.parts.length, 1);
  });
}

for (const includeThoughts of [true, false]) {
  test(`an upstream gets its reasoning back, thoughts included ${includeThoughts}`, async () => {
    for (const stream of [false, true]) {
      const chat = once.chats.create({ model: unique('needs-reasoning'), config: { tools: declare('one'), thinkingConfig: { includeThoughts } } });
      const say = async (message) => (stream ? gather(await chat.sendMessageStream({ message })) : chat.sendMessage({ message }));
      const first = await say('hi');
      const [{ id, name }] = stream ? first.calls : first.functionCalls;
      assert.equal((await say({ functionResponse: { id, name, response: { output: 'done' } } })).text, 'You said: done');
    }
  });
}

// A gateway remembers that its upstream signs calls: these go through the other
// one, so that no other test sees it.
test('thought signatures go there and back', async () => {
  const chat = google(plainURL).chats.create({ model: unique('signed'), config: { tools: declare('one') } });
  const first = await chat.sendMessage({ message: 'hi' });
  const { functionCall, thoughtSignature } = first.candidates[0].content.parts.find((p) => p.functionCall);
  assert.ok(thoughtSignature);
  assert.equal((await chat.sendMessage({ message: { functionResponse: { id: functionCall.id, name: 'one', response: { output: 'done' } } } })).text, 'You said: done');
});

test('calls from elsewhere, on an upstream that signs its own', async () => {
  const model = unique('signed');
  const client = google(plainURL);
  const config = { tools: declare('one') };
  await client.models.generateContent({ model, contents: 'hi', config });
  const contents = [turn('user', 'w?'), turn('model', { functionCall: { name: 'one', args: {} } }), turn('user', { functionResponse: { name: 'one', response: { output: 'done' } } })];
  assert.equal((await client.models.generateContent({ model, contents, config })).text, 'You said: done');
  const before = await seenBody(model);
  await client.models.generateContent({ model, contents: [...contents, turn('model', 'fine'), turn('user', 'and?')], config });
  assertExtends(await seenBody(model), before);
});

// Usage and ends.
test('usage', async () => {
  for (const { usageMetadata: u } of [await ask('cached'), (await askStream('cached')).chunks.at(-1)]) {
    assert.deepEqual([u.promptTokenCount, u.cachedContentTokenCount, u.thoughtsTokenCount, u.candidatesTokenCount, u.totalTokenCount], [100, 90, 2, 3, 105]);
  }
  for (const behaviour of ['usage-every', 'usage-finish']) assert.equal((await askStream(behaviour)).usage.promptTokenCount, 7, behaviour);
  const guessed = await ask('no-usage');
  assert.ok(guessed.usageMetadata.promptTokenCount > 0);
  assert.equal(guessed.sdkHttpResponse.headers['x-apiproxy-usage'], 'estimate');
});

test('answers that ended early', async () => {
  for (const [behaviour, want] of [['length', 'MAX_TOKENS'], ['filter', 'SAFETY']]) {
    assert.equal((await ask(behaviour)).candidates[0].finishReason, want);
    assert.equal((await askStream(behaviour)).finish, want);
  }
});

test('a prompt that is refused', async () => {
  const answer = await ask('filtered');
  assert.equal(answer.promptFeedback.blockReason, 'SAFETY');
  assert.equal(answer.text, undefined);
});

test('count tokens', async () => {
  const model = unique('ok'); // nothing is known of it that would correct the estimate
  const count = async (contents) => (await once.models.countTokens({ model, contents })).totalTokens;
  assert.equal(await count('hello world'), 8);
  assert.ok((await count([turn('user', 'w?'), turn('model', { functionCall: { name: 'f', args: {} } }), turn('user', { functionResponse: { name: 'f', response: { output: 'a'.repeat(36000) } } })])) > 9000);
  const { json, headers } = await send(gatewayURL, `/v1beta/models/${model}:countTokens`, { generateContentRequest: { model: `models/${model}`, contents: [turn('user', 'hello world')] } });
  assert.equal(json().totalTokens, 8);
  assert.equal(headers.get('x-apiproxy-token-count'), 'estimate');
});

test('models', async () => {
  const names = [];
  for await (const model of await demo.models.list({ config: { pageSize: 3 } })) names.push(model.name);
  assert.ok(names.includes('models/demo') && names.includes('models/demo-echo'), names.join());
  assert.equal(new Set(names).size, names.length);
  const model = await once.models.get({ model: 'org/model-a' });
  assert.deepEqual([model.name, model.inputTokenLimit], ['models/org/model-a', 131072]);
  assert.ok(model.supportedActions.includes('generateContent'));
  await assert.rejects(demo.models.get({ model: 'org/nothing' }), (e) => e instanceof ApiError && e.status === 404 && /NOT_FOUND/.test(e.message));
});

// Errors.
const failures = [
  { behaviour: '400', code: 400, status: 'INVALID_ARGUMENT' },
  { behaviour: '404', code: 404, status: 'NOT_FOUND' },
  { behaviour: '409', code: 409, status: 'ABORTED' },
  { behaviour: '422', code: 400, status: 'INVALID_ARGUMENT' },
  { behaviour: 'fastapi-422', code: 400, status: 'INVALID_ARGUMENT' },
  { behaviour: '429', code: 429, status: 'RESOURCE_EXHAUSTED' },
  { behaviour: 'quota', code: 429, status: 'RESOURCE_EXHAUSTED' },
  { behaviour: 'rate-first', code: 429, status: 'RESOURCE_EXHAUSTED' },
  { behaviour: 'error-200', code: 429, status: 'RESOURCE_EXHAUSTED' },
  { behaviour: '500', code: 500, status: 'INTERNAL' },
  { behaviour: '503', code: 503, status: 'UNAVAILABLE' },
  { behaviour: 'overflow', code: 400, status: 'INVALID_ARGUMENT', message: /input token count .*exceeds the maximum/ },
  ...['401', '403', 'html-502', 'html-404', 'html-200', 'cut-json', 'empty-choices', 'redirect', 'hang-up'].map((behaviour) => ({ behaviour, code: 503, status: 'UNAVAILABLE' })),
];
for (const { behaviour, code, status, message = /./ } of failures) {
  for (const call of [ask, askStream]) {
    test(`error ${behaviour}, ${call.name}`, async () => {
      await assert.rejects(call(behaviour), (e) => {
        assert.ok(e instanceof ApiError, `${e.constructor.name}: ${e.message}`);
        assert.equal(e.status, code);
        const { error } = JSON.parse(e.message);
        assert.deepEqual([error.code, error.status], [code, status]);
        assert.match(error.message, message);
        assert.doesNotMatch(e.message, /nginx|10\.1\.2\.3|<html/);
        assert.ok(!e.message.includes(upstreamKey), 'the upstream key is in the error');
        return true;
      });
    });
  }
}

test('Retry-After is told the Google way', async () => {
  await assert.rejects(ask('retry-429'), (e) => {
    const [info] = JSON.parse(e.message).error.details;
    assert.deepEqual(info, { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1s' });
    return true;
  });
});

test('refusals by the gateway', async () => {
  const path = '/v1beta/models/ok:generateContent';
  for (const [body, at = path, status = 400, name = 'INVALID_ARGUMENT'] of [
    ['{"contents":'],
    ['[]'],
    [{}],
    [{ contents: [] }],
    [{ contents: 7 }],
    [{ contents: 'hi', cachedContent: 'cachedContents/1' }],
    [{ contents: 'hi', generationConfig: { responseModalities: ['AUDIO'] } }],
    [{ contents: 'hi' }, '/v1beta/models/ok:embedContent', 404, 'NOT_FOUND'],
    [{ contents: 'hi' }, '/v1beta/models/ok:nothing', 404, 'NOT_FOUND'],
  ]) {
    const answer = await send(gatewayURL, at, body);
    const { error } = answer.json();
    assert.deepEqual([answer.status, error.code, error.status], [status, status, name], `${at} ${JSON.stringify(body)}`);
    assert.ok(error.message);
  }
});

for (const behaviour of ['cut-stream', 'early-end', 'error-in-stream']) {
  test(`${behaviour} is an error after what came`, async () => {
    let text = '';
    await assert.rejects(
      async () => {
        for await (const chunk of await once.models.generateContentStream(request(behaviour))) {
          text += chunk.text ?? '';
          assert.equal(chunk.candidates[0].finishReason, undefined);
        }
      },
      (e) => e instanceof ApiError && e.status >= 500 && (behaviour !== 'error-in-stream' || /the model fell over/.test(e.message)),
    );
    assert.equal(text, 'You said: ');
  });
}

test('an answer of the demo that breaks off', async () => {
  await assert.rejects(demo.models.generateContent({ model: 'demo-broken', contents: 'hi' }), (e) => e instanceof ApiError && e.status === 503);
  await assert.rejects(async () => gather(await demo.models.generateContentStream({ model: 'demo-broken', contents: 'hi' })), ApiError);
});

// Retries, which this SDK makes only when told to.
for (const [behaviour, attempts] of [['retry-429-ms', 2], ['retry-500', 3], ['retry-hang-up', 2]]) {
  test(`${behaviour} succeeds in the end`, async () => {
    const model = unique(behaviour);
    const client = google(gatewayURL, { retryOptions: { attempts: 4, initialDelay: 0.01, maxDelay: 0.02 } });
    assert.equal((await client.models.generateContent({ model, contents: 'hi' })).text, 'You said: hi');
    assert.equal((await seen(model)).length, attempts);
  });
}

// The upstream's ways.
for (const behaviour of ['ok', 'json-for-stream', 'sse-for-json', 'text-plain', 'usage-every', 'usage-finish', 'crlf', 'comments', 'no-space', 'byte-by-byte', 'no-done', 'vendor-fields']) {
  test(`answers of ${behaviour}`, async () => {
    const said = 'hällo 你好 😀 <b>';
    const { text, finish } = await askStream(behaviour, {}, said);
    assert.deepEqual([text, finish], [`You said: ${said}`, 'STOP']);
    assert.equal((await ask(behaviour, {}, said)).text, `You said: ${said}`);
  });
}

test('an event of 5 MB', async () => {
  assert.equal((await askStream('big-event')).text, 'abcdefghij'.repeat(524288));
});

// Both forms of a stream, as bytes.
const streamOf = (model) => `/v1beta/models/${model}:streamGenerateContent`;

test('a stream as events', async () => {
  const model = `${unique('ok')}:8b`; // the last colon counts
  const { text, headers } = await send(gatewayURL, `${streamOf(model)}?alt=sse`, { contents: 'hi' });
  assert.equal((await seen(model)).length, 1);
  assert.match(headers.get('content-type'), /^text\/event-stream/);
  assert.ok(!text.includes('[DONE]'));
  assert.ok(events(text).every(({ event, data }) => event === undefined && data.candidates.length === 1));
});

test('a stream as an array', async () => {
  const whole = await send(gatewayURL, streamOf(unique('ok')), { contents: 'hi' });
  assert.match(whole.headers.get('content-type'), /^application\/json/);
  assert.equal(whole.json().map((c) => c.candidates[0].content.parts[0].text).join(''), 'You said: hi');
  assert.equal(whole.json().at(-1).candidates[0].finishReason, 'STOP');
  const cut = await send(gatewayURL, streamOf(unique('error-in-stream')), { contents: 'hi' });
  assert.equal(typeof cut.json().at(-1).error.code, 'number');
});

test('snake case', async () => {
  const model = unique('ok');
  const body = {
    system_instruction: { parts: [{ text: 's' }] }, generation_config: { max_output_tokens: 5, stop_sequences: ['x'] },
    contents: [turn('user', { inline_data: { mime_type: 'image/png', data: 'AA==' } })],
  };
  assert.equal((await send(gatewayURL, `/v1beta/models/${model.replace('/', '%2F')}:generateContent`, body)).status, 200);
  assert.deepEqual(await sent(model), {
    model, max_tokens: 5, stop: ['x'],
    messages: [{ role: 'system', content: 's' }, { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } }] }],
  });
});

test('digits and order of arguments survive', async () => {
  const { text } = await send(gatewayURL, `/v1beta/models/${unique('calls')}:generateContent`, { contents: 'hi', tools: declare('one') });
  assert.match(text, /"args":\{"b": ?1, ?"a": ?9007199254740993\}/);
});

// Keys and headers.
test('a key in every place', async () => {
  const at = (query = '') => `/v1beta/models/${unique('ok')}:generateContent${query}`;
  const nobody = { authorization: '' };
  for (const [query, headers] of [['', { 'x-goog-api-key': aliceKey, ...nobody }], [`?key=${aliceKey}`, nobody], ['', { authorization: `Bearer ${aliceKey}` }]]) {
    assert.equal((await send(gatewayURL, at(query), { contents: 'hi' }, headers)).status, 200, query);
  }
  for (const apiKey of ['wrong', upstreamKey]) {
    await assert.rejects(google(gatewayURL, {}, { apiKey }).models.generateContent(request('ok')), (e) => e instanceof ApiError && e.status === 401 && JSON.parse(e.message).error.status === 'UNAUTHENTICATED');
  }
});

test('what goes upstream', async () => {
  const model = unique('ok');
  await send(gatewayURL, `/v1beta/models/${model}:generateContent?key=${aliceKey}`, { contents: 'hi' }, { 'x-goog-api-key': aliceKey, 'x-goog-api-client': 'google-genai-sdk/3', 'x-server-timeout': '9' });
  const [{ path, headers, rawHeaders }] = await seen(model);
  assert.equal(path, '/v1/chat/completions');
  assert.equal(headers.authorization, `Bearer ${upstreamKey}`);
  assert.ok(!JSON.stringify(rawHeaders).includes(aliceKey), 'the client key went upstream');
  for (const name of Object.keys(headers)) assert.doesNotMatch(name, /^x-goog-|^x-server-timeout$/);
});

for (const [field, config] of [['top_k', { topK: 64 }], ['reasoning_effort', { thinkingConfig: { thinkingBudget: 8192 } }]]) {
  test(`an upstream that refuses ${field}`, async () => {
    const model = unique(`no-${field}`);
    for (const tries of [2, 3]) {
      assert.equal((await askStream(model, config)).text, 'You said: hi');
      assert.equal((await seen(model)).length, tries, 'it is not remembered what the upstream refuses');
    }
  });
}

// Leaving, and waiting too long.
test('a client that leaves a stream frees the upstream', async () => {
  const model = unique('slow-stream');
  const controller = new AbortController();
  await assert.rejects(async () => {
    let chunks = 0;
    for await (const _ of await once.models.generateContentStream(request(model, { abortSignal: controller.signal }))) if (++chunks === 3) controller.abort();
  });
  await assertAborted(model, Date.now());
});

test('a client that aborts frees the upstream', async () => {
  const model = unique('slow-first');
  await assert.rejects(ask(model, { abortSignal: AbortSignal.timeout(300) }));
  await assertAborted(model, Date.now());
});

test('an upstream that stays silent is a 504', async () => {
  await assert.rejects(google(plainURL).models.generateContent(request('slow-first')), (e) => e instanceof ApiError && e.status === 504 && /DEADLINE_EXCEEDED/.test(e.message));
});

// Sessions.
for (const [from, to] of [...Object.keys(speakers).map((to) => ['gemini', to]), ['chat', 'gemini']]) {
  test(`a session begun in ${from} continues in ${to}`, () => assertContinues(`node-${randomUUID()}`, from, to));
}

test('a streamed session', async () => {
  const httpOptions = { headers: { 'x-session-id': randomUUID() } };
  const { text } = await askStream('ok', { httpOptions }, 'one');
  await assert.rejects(askStream('cut-stream', { httpOptions }, 'lost'));
  const model = unique('ok');
  await ask(model, { httpOptions }, 'two');
  assert.deepEqual((await sent(model)).messages.map((m) => m.content), ['one', text, 'two']);
});
