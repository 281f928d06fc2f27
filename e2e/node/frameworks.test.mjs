// The AI SDK, whose providers of Anthropic's and OpenAI's APIs check every field
// of an answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from 'ai';
import { demoURL, gatewayURL, unique } from './helper.mjs';
import { citySchema, keyOf, noArguments, sent, thought } from './dialects.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;

const providers = {
  anthropic: (url) => createAnthropic({ baseURL: `${url}/v1`, apiKey: keyOf(url) }),
  responses: (url) => createOpenAI({ baseURL: `${url}/v1`, apiKey: keyOf(url) }),
};
const weather = tool({ description: 'the weather in a city', inputSchema: jsonSchema(citySchema), execute: () => '18 degrees' });
const one = tool({ inputSchema: jsonSchema(noArguments), execute: () => 'done' });

// say asks in one way or the other, and gives what both know.
async function say(stream, options) {
  const all = { maxRetries: 0, ...options };
  if (!stream) return generateText(all);
  const result = streamText({ ...all, onError: () => {} });
  const errors = [];
  for await (const part of result.fullStream) if (part.type === 'error') errors.push(part.error);
  if (errors.length > 0) return { errors };
  return { text: await result.text, steps: await result.steps, usage: await result.usage, finishReason: await result.finishReason };
}

for (const [name, provider] of Object.entries(providers)) {
  for (const stream of [false, true]) {
    test(`the AI SDK, ${name}, stream ${stream}`, async () => {
      const { text, usage, finishReason } = await say(stream, { model: provider(demoURL)('demo'), prompt: 'count to 20' });
      assert.equal(text, Array.from({ length: 20 }, (_, i) => i + 1).join(' '));
      assert.deepEqual([finishReason, usage.outputTokens], ['stop', 20]);
    });

    test(`the AI SDK, ${name}, a tool, stream ${stream}`, async () => {
      const { text, steps } = await say(stream, { model: provider(demoURL)('demo-tools'), prompt: 'The weather in Paris?', tools: { weather }, stopWhen: stepCountIs(4) });
      assert.match(text, /18 degrees/);
      assert.deepEqual(steps.map((s) => s.toolCalls.map((c) => c.input)), [[{ city: 'Paris' }], []]);
    });

    // OpenAI's provider refers to stored items by id unless store is false.
    for (const store of name === 'responses' ? [true, false] : [true]) {
      test(`the AI SDK, ${name}, reasoning that must come back, stream ${stream}, store ${store}`, async () => {
        const model = unique('needs-reasoning');
        const { text, steps } = await say(stream, {
          model: provider(gatewayURL)(model), prompt: 'call both', tools: { one, two: one }, stopWhen: stepCountIs(4),
          providerOptions: { anthropic: { thinking: { type: 'enabled', budgetTokens: 2000 } }, openai: { store, include: ['reasoning.encrypted_content'] } },
        });
        assert.equal(text, 'You said: done');
        assert.deepEqual(steps.map((s) => [s.toolCalls.length, s.reasoningText, s.finishReason]), [[2, thought, 'tool-calls'], [0, thought, 'stop']]);
        const { messages } = await sent(model);
        assert.deepEqual(messages.map((m) => [m.role, m.reasoning_content]), [['user', undefined], ['assistant', thought], ['tool', undefined], ['tool', undefined]]);
      });
    }

    test(`the AI SDK, ${name}, ends, stream ${stream}`, async () => {
      for (const [behaviour, finish] of [['length', 'length'], ['filter', 'content-filter']]) {
        const { finishReason } = await say(stream, { model: provider(gatewayURL)(unique(behaviour)), prompt: 'hi' });
        assert.equal(finishReason, finish, behaviour);
      }
      const { usage } = await say(stream, { model: provider(gatewayURL)(unique('cached')), prompt: 'hi' });
      assert.deepEqual([usage.inputTokens, usage.inputTokenDetails.cacheReadTokens, usage.outputTokens], [100, 90, 5]);
    });
  }

  test(`the AI SDK, ${name}, errors`, async () => {
    for (const [behaviour, status, retryable] of [['429', 429, true], ['500', 500, true], ['404', 404, false], ['overflow', 400, false]]) {
      await assert.rejects(say(false, { model: provider(gatewayURL)(unique(behaviour)), prompt: 'hi' }), (e) => {
        assert.deepEqual([e.statusCode, e.isRetryable], [status, retryable], behaviour);
        return true;
      });
    }
    for (const behaviour of ['early-end', 'error-in-stream', 'call-then-error']) {
      const { errors } = await say(true, { model: provider(gatewayURL)(unique(behaviour)), prompt: 'hi', tools: { one, two: one } });
      assert.equal(errors?.length, 1, behaviour);
    }
  });

  test(`the AI SDK, ${name}, history and a schema`, async () => {
    const model = provider(gatewayURL)(unique('ok'));
    const system = 'Be kind.';
    const first = await generateText({ model, system, prompt: 'one' });
    await generateText({ model, system, messages: [{ role: 'user', content: 'one' }, ...first.response.messages, { role: 'user', content: 'two' }] });
    assert.deepEqual((await sent(model.modelId)).messages, [
      { role: 'system', content: system }, { role: 'user', content: 'one' }, { role: 'assistant', content: 'You said: one' }, { role: 'user', content: 'two' },
    ]);
    // The scripted upstream heeds no schema; what counts is that it gets it.
    await assert.rejects(generateText({ model, prompt: 'hi', output: Output.object({ schema: jsonSchema(citySchema) }) }), /No object generated/);
    const { response_format: format, tools } = await sent(model.modelId);
    const schema = name === 'anthropic' ? tools[0].function.parameters : format.json_schema.schema;
    assert.deepEqual(schema.properties, citySchema.properties);
  });
}
