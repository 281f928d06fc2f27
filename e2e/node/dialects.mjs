// What the suites of the other dialects need: clients of the makers' own SDKs,
// raw requests, and one conversation in four dialects.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { aliceKey, context, demoURL, seenBody, user } from './helper.mjs';

export const keyOf = (url) => (url === demoURL ? 'demo' : aliceKey);

// The clients try nothing again unless a test says so.
export const claude = (url, options = {}) => new Anthropic({ baseURL: url, apiKey: keyOf(url), maxRetries: 0, ...options });
export const google = (url, httpOptions = {}, options = {}) => new GoogleGenAI({ apiKey: keyOf(url), httpOptions: { baseUrl: url, ...httpOptions }, ...options });
export const openai = (url, options = {}) => new OpenAI({ baseURL: `${url}/v1`, apiKey: keyOf(url), maxRetries: 0, ...options });

// What the scripted upstream (../upstream.mjs) thinks and writes.
export const thought = 'I think, <therefore> I answer.';
export const patch = '*** Begin Patch\n*** Update File: a "b".txt\n-old \\ line\n+new\ttab é 😀\n*** End Patch\n';

// A picture for the demo model, which counts its bytes.
export const picture = randomBytes(4 << 20).toString('base64');

export const citySchema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
export const noArguments = { type: 'object', properties: {} };

// sent is the last body that the upstream received, read.
export const sent = async (model) => JSON.parse(await seenBody(model));

// send posts a body as JSON, without a client library; without a body it gets.
// A header that is '' is not sent.
export async function send(url, path, body, headers = {}) {
  const all = { authorization: `Bearer ${keyOf(url)}`, 'content-type': 'application/json', ...headers };
  const answer = await fetch(url + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: Object.fromEntries(Object.entries(all).filter(([, value]) => value !== '')),
    body: body === undefined || typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, text, json: () => JSON.parse(text) };
}

// events reads an event stream: the name of each event, if it has one, and its data.
export function events(text) {
  assert.match(text, /\r?\n\r?\n$/, 'the stream does not end in a blank line');
  return text.split(/\r?\n\r?\n/).filter((block) => block && !block.startsWith(':')).map((block) => {
    const fields = block.split(/\r?\n/).map((line) => line.split(/: ?(.*)/s));
    const data = fields.filter(([name]) => name === 'data').map(([, value]) => value).join('\n');
    return { event: fields.find(([name]) => name === 'event')?.[1], data: data === '[DONE]' ? data : JSON.parse(data) };
  });
}

// assertExtends checks that the messages of one upstream body are, byte for
// byte, the beginning of another's: only then does a prompt cache help.
export function assertExtends(later, earlier) {
  const cut = (body) => {
    const text = body.toString();
    const end = text.indexOf('],"tools":[');
    assert.ok(end > 0, `no messages followed by tools in ${text}`);
    return text.slice(text.indexOf('"messages":['), end);
  };
  assert.ok(cut(later).startsWith(cut(earlier)), `${cut(later)}\ndoes not begin with\n${cut(earlier)}`);
}

// speakers hold one conversation each, sending only what is new: the rest is up
// to the session. say returns the answer's text, call what the model wants to
// call, and answer takes a call's result.
export const speakers = {
  chat(url, session) {
    const client = openai(url, { defaultHeaders: { 'X-Session-Id': session } });
    const create = async (body) => (await client.chat.completions.create(body)).choices[0].message;
    const tools = [{ type: 'function', function: { name: 'weather', parameters: citySchema } }];
    return {
      say: async (text) => (await create({ model: 'demo', messages: user(text) })).content,
      async call(text) {
        const { tool_calls: [call] } = await create({ model: 'demo-tools', messages: user(text), tools });
        return { id: call.id, name: call.function.name, args: JSON.parse(call.function.arguments) };
      },
      answer: async (call, result) => (await create({ model: 'demo-tools', messages: [{ role: 'tool', tool_call_id: call.id, content: result }], tools })).content,
    };
  },

  anthropic(url, session) {
    const client = claude(url, { defaultHeaders: { 'X-Session-Id': session } });
    const create = async (body) => (await client.messages.create({ max_tokens: 500, ...body })).content;
    const tools = [{ name: 'weather', input_schema: citySchema }];
    return {
      say: async (text) => (await create({ model: 'demo', messages: user(text) }))[0].text,
      async call(text) {
        const { id, name, input } = (await create({ model: 'demo-tools', messages: user(text), tools })).find((b) => b.type === 'tool_use');
        return { id, name, args: input };
      },
      answer: async (call, result) => (await create({ model: 'demo-tools', messages: user([{ type: 'tool_result', tool_use_id: call.id, content: result }]), tools }))[0].text,
    };
  },

  gemini(url, session) {
    const client = google(url, { headers: { 'X-Session-Id': session } });
    const tools = [{ functionDeclarations: [{ name: 'weather', parametersJsonSchema: citySchema }] }];
    return {
      say: async (text) => (await client.models.generateContent({ model: 'demo', contents: text })).text,
      async call(text) {
        const { functionCalls: [{ id, name, args }] } = await client.models.generateContent({ model: 'demo-tools', contents: text, config: { tools } });
        return { id, name, args };
      },
      async answer({ id, name }, result) {
        const contents = [{ role: 'user', parts: [{ functionResponse: { id, name, response: { output: result } } }] }];
        return (await client.models.generateContent({ model: 'demo-tools', contents, config: { tools } })).text;
      },
    };
  },

  responses(url, session) {
    const client = openai(url, { defaultHeaders: { 'X-Session-Id': session } });
    const tools = [{ type: 'function', name: 'weather', parameters: citySchema, strict: null }];
    return {
      say: async (text) => (await client.responses.create({ model: 'demo', input: text })).output_text,
      async call(text) {
        const { call_id: id, name, arguments: args } = (await client.responses.create({ model: 'demo-tools', input: text, tools })).output.find((i) => i.type === 'function_call');
        return { id, name, args: JSON.parse(args) };
      },
      answer: async (call, result) => (await client.responses.create({ model: 'demo-tools', input: [{ type: 'function_call_output', call_id: call.id, output: result }], tools })).output_text,
    };
  },
};

// assertContinues holds a conversation with a tool in it, begun in one dialect
// and taken up in another in the middle of the call.
export async function assertContinues(session, from, to) {
  const [first, second] = [speakers[from](demoURL, session), speakers[to](demoURL, session)];
  await first.say('my name is Ada');
  const call = await first.call('The weather in Paris?');
  assert.deepEqual([call.name, call.args], ['weather', { city: 'Paris' }]);
  assert.match(await second.answer(call, '18 degrees'), /> 18 degrees/);
  const answer = await second.say('what is my name?');
  assert.match(answer, /\*\*Ada\*\*/);
  assert.match(answer, /7 messages/);
  assert.match(await first.say('who am i?'), /\*\*Ada\*\*[^]*9 messages/);

  const { body } = await context(demoURL, 'demo', session);
  assert.deepEqual(body.messages.map((m) => m.role), ['user', 'assistant', 'user', 'assistant', 'tool', 'assistant', 'user', 'assistant', 'user', 'assistant']);
  assert.equal(body.messages[3].tool_calls[0].id, body.messages[4].tool_call_id);
  assert.equal(body.messages[4].content, '18 degrees');
}
