// A chat completions upstream that misbehaves on request. Run: node upstream.mjs PORT
//
// The model's name chooses the behaviour: what stands before the first "/" is a
// name in the table below, the rest is the test's own, so that tests don't see
// each other's requests. What is not a chat request goes by X-Request-Id.
//
//   GET /__requests?of=NAME   what arrived under that model or request id
//   GET /__body?of=NAME       the bytes of the last body of these

import http from 'node:http';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

const records = new Map(); // model or request id -> what arrived

const behaviours = {
  // Good answers, in the form that was asked for.
  ok: (x) => (x.wantsStream ? stream(x, answerEvents(x)) : json(x, 200, completion(x))),
  'json-for-stream': (x) => json(x, 200, completion(x)),
  'sse-for-json': (x) => stream(x, answerEvents(x)),
  'text-plain': (x) => send(x, 200, 'text/plain', JSON.stringify(completion(x))),

  // Failures that pass when tried again.
  'retry-429': (x) => failFirst(x, 1, () => json(x, 429, error('slow down', 'rate_limit_error', 'rate_limit_exceeded'), { 'retry-after': '1' })),
  'retry-429-ms': (x) => failFirst(x, 1, () => json(x, 429, error('slow down', 'rate_limit_error', 'rate_limit_exceeded'), { 'retry-after-ms': '50' })),
  'retry-500': (x) => failFirst(x, 2, () => json(x, 500, error('a hiccup', 'server_error', null), { 'retry-after-ms': '10' })),
  'retry-hang-up': (x) => failFirst(x, 1, () => x.res.destroy()),

  // Failures that stay.
  400: (x) => json(x, 400, error("Unsupported value: 'temperature'", 'invalid_request_error', 'unsupported_value', 'temperature')),
  401: (x) => json(x, 401, error('Incorrect API key provided: ' + x.key, 'invalid_request_error', 'invalid_api_key')),
  403: (x) => json(x, 403, error('Not for you', 'permission_error', null)),
  404: (x) => json(x, 404, error('The model `x` does not exist', 'invalid_request_error', 'model_not_found')),
  409: (x) => json(x, 409, error('conflict', 'invalid_request_error', 'conflict')),
  422: (x) => json(x, 422, error('unprocessable', 'invalid_request_error', null)),
  429: (x) => json(x, 429, error('slow down', 'rate_limit_error', 'rate_limit_exceeded'), { 'retry-after-ms': '10', 'x-ratelimit-remaining-requests': '0' }),
  500: (x) => json(x, 500, error('broken', 'server_error', null)),
  503: (x) => json(x, 503, error('overloaded', 'server_error', 'server_is_overloaded'), { 'retry-after-ms': '10' }),
  quota: (x) => json(x, 429, error('You exceeded your current quota', 'insufficient_quota', 'insufficient_quota')),
  'fastapi-422': (x) => json(x, 422, { detail: [{ loc: ['body', 'messages'], msg: 'field required', type: 'value_error' }] }),
  'html-502': (x) => send(x, 502, 'text/html', '<html><head><title>502 Bad Gateway</title></head><body>nginx at 10.1.2.3</body></html>'),
  'html-404': (x) => send(x, 404, 'text/html', '<html><title>Not Found</title></html>'),
  'html-200': (x) => send(x, 200, 'text/html', '<html><title>Welcome</title></html>'),
  'error-200': (x) => json(x, 200, error('slow down', 'rate_limit_error', 'rate_limit_exceeded')),
  redirect: (x) => send(x, 302, 'text/plain', 'over there', { location: `http://${x.req.headers.host}/v1/models` }),
  'hang-up': (x) => x.res.destroy(),
  'cut-json': (x) => cutJSON(x),

  // Streams that end badly.
  'cut-stream': (x) => stream(x, answerEvents(x).slice(0, 3), { end: 'destroy' }),
  'early-end': (x) => stream(x, answerEvents(x).slice(0, 3), { end: 'clean' }),
  'no-done': (x) => stream(x, answerEvents(x).slice(0, -1)),
  'error-in-stream': (x) => stream(x, [...answerEvents(x).slice(0, 3), { error: { message: 'the model fell over', type: 'server_error', param: null, code: 'fell_over' } }]),
  'error-first': (x) => stream(x, [{ error: { message: 'the model fell over', type: 'server_error', param: null, code: 'fell_over' } }]),

  // Slow ones.
  'slow-first': async (x) => { await pause(x, 6000); await behaviours.ok(x); },
  'slow-stream': (x) => stream(x, Array.from({ length: 150 }, (_, i) => chunk(x, { content: `${i} ` })), { gap: 200 }),

  // Odd but legal streams.
  'usage-every': (x) => stream(x, answerEvents(x).map((e, i) => (typeof e === 'string' ? e : { ...e, usage: usage(i) }))),
  'usage-finish': (x) => stream(x, answerEvents(x).map((e) => (e.choices?.[0]?.finish_reason ? { ...e, usage: usage(4) } : e))),
  crlf: (x) => stream(x, answerEvents(x), { newline: '\r\n', before: ': a comment\r\n\r\nevent: message\r\nretry: 1000\r\n' }),
  comments: (x) => stream(x, answerEvents(x), { before: ': PROCESSING\n\n' }),
  'no-space': (x) => stream(x, answerEvents(x), { field: 'data:' }),
  'byte-by-byte': (x) => byteByByte(x),
  'big-event': (x) => stream(x, [chunk(x, { role: 'assistant', content: '' }), chunk(x, { content: big() }), ...answerEvents(x).slice(-2)]),
  'vendor-fields': (x) => stream(x, answerEvents(x).map((e) => (typeof e === 'string' ? e : { ...e, x_vendor: { b: 1.0, a: [null] } }))),

  // What models do besides talking. A tool's result ends in talk.
  reasoning: (x) => speak(x, { reasoning: thought, text: answer(x) }),
  'think-tags': (x) => speak(x, { text: `<think>${thought}</think>\n\n${answer(x)}`, size: 1 }),
  calls: (x) => speak(x, orTalk(x, { calls: callsFor(x) })),
  'calls-whole': (x) => speak(x, orTalk(x, { calls: callsFor(x), whole: true, finish: 'stop' })),
  'text-and-calls': (x) => speak(x, orTalk(x, { text: 'Let me see.', calls: callsFor(x) })),
  'needs-reasoning': (x) => (hasThoughts(x) ? speak(x, { reasoning: thought, ...orTalk(x, { calls: callsFor(x) }) })
    : json(x, 400, error('The reasoning_content in the thinking mode must be passed back to the API.', 'invalid_request_error', 'invalid_request_error'))),
  signed: (x) => (hasSignatures(x) ? speak(x, orTalk(x, { calls: callsFor(x, { extra_content: { google: { thought_signature: signature } } }) }))
    : json(x, 400, error('Function call is missing a thought_signature in functionCall parts.', 'invalid_request_error', null))),
  length: (x) => speak(x, { text: answer(x), finish: 'length' }),
  'length-call': (x) => speak(x, { calls: callsFor(x).map((c) => ({ ...c, arguments: c.arguments.slice(0, 9) })), finish: 'length' }),
  filter: (x) => speak(x, { text: answer(x), finish: 'content_filter' }),
  cached: (x) => speak(x, { text: answer(x), usage: cachedUsage }),
  hostile: (x) => speak(x, { reasoning: hostile, text: hostile, calls: [{ id: 'call_1', name: '<img src=x onerror=hacked()>', arguments: hostile }] }),
  'no-usage': (x) => speak(x, { text: answer(x), usage: null }),
  'rate-first': (x) => stream(x, [{ error: { message: 'slow down', code: 429 } }]),
  'call-then-error': (x) => stream(x, [...spokenEvents(x, { calls: callsFor(x) }).slice(0, -2), { error: { message: 'the model fell over', type: 'server_error', param: null, code: 'fell_over' } }]),
  'empty-choices': (x) => json(x, 200, { ...completion(x), choices: [] }),
  overflow: (x) => json(x, 400, error("This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. Please reduce the length of the messages.", 'invalid_request_error', 'context_length_exceeded', 'messages')),
  filtered: (x) => json(x, 400, error('The prompt was filtered.', 'invalid_request_error', 'content_filter', 'prompt')),
  'no-top_k': (x) => without(x, 'top_k'),
  'no-max_tokens': (x) => without(x, 'max_tokens'),
  'no-reasoning_effort': (x) => without(x, 'reasoning_effort'),
  'no-stream_options': (x) => without(x, 'stream_options'),

  // Secrets and headers.
  'leak-json': (x) => json(x, 200, completion(x, 'my key is ' + x.key), { 'x-debug-key': x.key }),
  'leak-stream': (x) => stream(x, [chunk(x, { role: 'assistant', content: 'my key is ' + x.key }), ...answerEvents(x).slice(-2)], { headers: { 'x-debug-key': x.key } }),
  'leak-error': (x) => json(x, 400, error('bad key ' + x.key, 'invalid_request_error', null)),
  headers: (x) => json(x, 200, completion(x), {
    'set-cookie': 'track=1', 'x-ratelimit-limit-requests': '60', 'x-ratelimit-remaining-requests': '59',
    'openai-processing-ms': '12', 'x-request-id': 'req_upstream', 'openai-organization': 'acme-private', server: 'acme/1.0',
  }),
};

const server = http.createServer(async (req, res) => {
  const body = await readBody(req);
  const url = new URL(req.url, 'http://upstream');
  if (url.pathname.startsWith('/__')) return control(url, res);
  const x = { req, res, url, body, key: (req.headers.authorization ?? '').replace(/^Bearer /, '') };
  if (body === null) return; // the client left while it was still sending
  record(x);
  try {
    await route(x);
  } catch (e) {
    if (!x.aborted) console.error(e);
    res.destroy();
  }
});
server.requestTimeout = 0;
server.listen(Number(process.argv[2]), '127.0.0.1');

async function readBody(req) {
  const parts = [];
  try {
    for await (const part of req) parts.push(part);
  } catch {
    return null;
  }
  return Buffer.concat(parts);
}

function control(url, res) {
  const list = records.get(url.searchParams.get('of')) ?? [];
  if (url.pathname === '/__body') {
    res.end(list.at(-1)?.body);
    return;
  }
  res.setHeader('content-type', 'application/json');
  res.end(JSON.stringify(list.map(({ body, ...rest }) => ({ ...rest, bytes: body.length }))));
}

// record notes the request, and later whether its client left before the end.
function record(x) {
  try {
    x.json = JSON.parse(x.body);
  } catch {
    x.json = {};
  }
  x.model = x.json.model ?? '';
  x.wantsStream = x.json.stream === true;
  const of = x.model || x.req.headers['x-request-id'] || x.url.pathname;
  const r = { at: Date.now(), method: x.req.method, path: x.req.url, headers: x.req.headers, rawHeaders: x.req.rawHeaders, body: x.body, abortedAt: 0 };
  records.set(of, [...(records.get(of) ?? []), r]);
  x.attempt = records.get(of).length;
  x.res.on('close', () => {
    x.aborted = !x.res.writableFinished;
    if (x.aborted) r.abortedAt = Date.now();
  });
}

async function route(x) {
  if (x.url.pathname === '/v1/models') return json(x, 200, models);
  if (x.url.pathname !== '/v1/chat/completions') return json(x, 200, { object: 'other', path: x.url.pathname, bytes: x.body.length });
  const behaviour = behaviours[x.model.split('/')[0]];
  if (!behaviour) return json(x, 404, error('no behaviour ' + x.model, 'invalid_request_error', 'model_not_found'));
  await behaviour(x);
}

const models = {
  object: 'list',
  data: [
    { id: 'plain', object: 'model', created: 1700000000, owned_by: 'acme' },
    { id: 'org/model-a', object: 'model', created: 1700000001, owned_by: 'acme', context_length: 131072 },
    { id: 'org/team/model:b', object: 'model', created: 1700000002, owned_by: 'acme' },
  ],
};

async function failFirst(x, times, fail) {
  if (x.attempt <= times) return fail();
  return behaviours.ok(x);
}

function error(message, type, code, param = null) {
  return { error: { message, type, param, code } };
}

function usage(completion) {
  return { prompt_tokens: 7, completion_tokens: completion, total_tokens: 7 + completion };
}

function completion(x, text = answer(x)) {
  return {
    id: 'chatcmpl-up', object: 'chat.completion', created: 1700000000, model: x.model,
    choices: [{ index: 0, message: { role: 'assistant', content: text, refusal: null }, logprobs: null, finish_reason: 'stop' }],
    usage: usage(4),
  };
}

// answer repeats the last message, so that a mix-up of answers shows.
function answer(x) {
  const last = x.json.messages?.at(-1)?.content;
  return 'You said: ' + (typeof last === 'string' ? last : JSON.stringify(last ?? null));
}

function chunk(x, delta, finish = null) {
  return {
    id: 'chatcmpl-up', object: 'chat.completion.chunk', created: 1700000000, model: x.model,
    choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }],
  };
}

function answerEvents(x) {
  const words = answer(x).split(/(?<= )/);
  const events = [chunk(x, { role: 'assistant', content: '' }), ...words.map((w) => chunk(x, { content: w })), chunk(x, {}, 'stop')];
  if (x.json.stream_options?.include_usage) events.push({ ...chunk(x, {}), choices: [], usage: usage(4) });
  return [...events, '[DONE]'];
}

const thought = 'I think, <therefore> I answer.';
// What would run in a page that took an answer for anything but text.
const hostile = [
  '<img src=x onerror="hacked()"> <script>hacked()</script> <svg onload="hacked()"></svg> <iframe src="javascript:parent.hacked()"></iframe>',
  '[one](javascript:hacked()) [two]( JaVaScRiPt:hacked() ) [three](java&#115;cript:hacked()) [four](data:text/html,<script>hacked()</script>) [five](vbscript:hacked())',
  '[six](https://example.com/"onclick="hacked()) [seven](//evil.example/) [eight](/status) <javascript:hacked()> <a href="javascript:hacked()">nine</a>',
  '![ten](https://evil.example/pixel.png) ![eleven](javascript:hacked()) ![twelve](data:image/svg+xml,<svg/onload=hacked()>)',
  '# <img src=x onerror=hacked()>\n\n| <img src=x onerror=hacked()> | b |\n|---|---|\n| [x](javascript:hacked()) | <script>hacked()</script> |',
  '```"><img src=x onerror=hacked()>\n<script>hacked()</script>\n```',
  '<style>body{display:none}</style><base href="https://evil.example/"><meta http-equiv="refresh" content="0;url=https://evil.example/"><form action="https://evil.example/"><button>send</button></form>',
  '> - 1. > <img src=x onerror=hacked()>\n\n**<b onmouseover=hacked()>*`<i>`*</b>**',
].join('\n\n');
const signature = 'c2lnbmF0dXJlLW9mLXRoZS10aG91Z2h0';
const cachedUsage = {
  prompt_tokens: 100, completion_tokens: 5, total_tokens: 105,
  prompt_tokens_details: { cached_tokens: 90 }, completion_tokens_details: { reasoning_tokens: 2 },
};

// A patch that only arrives whole when every kind of quoting is undone.
const patch = '*** Begin Patch\n*** Update File: a "b".txt\n-old \\ line\n+new\ttab é 😀\n*** End Patch\n';

let callsMade = 0;

// callsFor calls the tools offered, all or the one that tool_choice names. Tools
// that take one text get the patch, others numbers whose order and digits matter.
function callsFor(x, extra = {}) {
  const only = x.json.tool_choice?.function?.name;
  return (x.json.tools ?? []).filter((t) => !only || t.function.name === only).map((t) => ({
    id: `call_${++callsMade}`,
    name: t.function.name,
    arguments: t.function.parameters?.properties?.input ? JSON.stringify({ input: patch }) : '{"b": 1, "a": 9007199254740993}',
    ...extra,
  }));
}

// orTalk is the calls, or talk where calling makes no sense.
function orTalk(x, said) {
  const mayCall = said.calls.length > 0 && x.json.tool_choice !== 'none' && x.json.messages.at(-1).role !== 'tool';
  return mayCall ? said : { text: answer(x) };
}

const earlierCalls = (x) => x.json.messages.filter((m) => m.tool_calls);
const hasThoughts = (x) => earlierCalls(x).every((m) => m.reasoning_content === thought);
const signatures = [signature, 'skip_thought_signature_validator']; // what Google's server takes
const hasSignatures = (x) => earlierCalls(x).every((m) => signatures.includes(m.tool_calls[0].extra_content?.google?.thought_signature));

// without refuses a request that has the field, as OpenAI refuses it.
function without(x, field) {
  if (!(field in x.json)) return behaviours.ok(x);
  return json(x, 400, error(`Unsupported parameter: '${field}' is not supported with this model.`, 'invalid_request_error', 'unsupported_parameter', field));
}

// speak answers with what a model says, in the form that was asked for.
function speak(x, said) {
  return x.wantsStream ? stream(x, spokenEvents(x, said)) : json(x, 200, spoken(x, said));
}

const finishOf = (said) => said.finish ?? (said.calls ? 'tool_calls' : 'stop');

function wireCall({ id, name, arguments: args, ...extra }, whole) {
  if (whole) return { function: { name, arguments: JSON.parse(args) } };
  return { id, type: 'function', function: { name, arguments: args }, ...extra };
}

function spoken(x, said) {
  const message = { role: 'assistant', content: said.text ?? null };
  if (said.reasoning) message.reasoning_content = said.reasoning;
  if (said.calls) message.tool_calls = said.calls.map((c) => wireCall(c, said.whole));
  const whole = { ...completion(x), choices: [{ index: 0, message, logprobs: null, finish_reason: finishOf(said) }] };
  if (said.usage !== undefined) whole.usage = said.usage ?? undefined;
  return whole;
}

function spokenEvents(x, said) {
  const cut = (text, size = said.size ?? 7) => text?.match(new RegExp(`[^]{1,${size}}`, 'gu')) ?? [];
  const events = [
    chunk(x, { role: 'assistant', content: '' }),
    ...cut(said.reasoning).map((t) => chunk(x, { reasoning_content: t })),
    ...cut(said.text).map((t) => chunk(x, { content: t })),
    ...callDeltas(said, cut).map((c) => chunk(x, { tool_calls: [c] })),
    chunk(x, {}, finishOf(said)),
  ];
  const counted = said.usage === undefined ? usage(4) : said.usage;
  if (x.json.stream_options?.include_usage && counted) events.push({ ...chunk(x, {}), choices: [], usage: counted });
  return [...events, '[DONE]'];
}

// callDeltas begins every call and then sends their arguments in turns, without
// ids; a server that knows whole calls alone sends each in one piece.
function callDeltas({ calls = [], whole }, cut) {
  if (whole) return calls.map((c) => wireCall(c, true));
  const heads = calls.map((c, index) => ({ index, ...wireCall({ ...c, arguments: '' }) }));
  const pieces = calls.map((c) => cut(c.arguments));
  const rest = [];
  for (let i = 0; pieces.some((p) => i < p.length); i++) {
    pieces.forEach((p, index) => i < p.length && rest.push({ index, function: { arguments: p[i] } }));
  }
  return [...heads, ...rest];
}

const big = () => 'abcdefghij'.repeat(524288); // 5 MiB

function json(x, status, body, headers = {}) {
  return send(x, status, 'application/json', JSON.stringify(body), headers);
}

function send(x, status, type, body, headers = {}) {
  x.res.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), ...headers });
  x.res.end(body);
}

async function stream(x, events, { end = 'done', gap = 0, newline = '\n', before = '', field = 'data: ', headers = {} } = {}) {
  x.res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache', ...headers });
  x.res.flushHeaders();
  for (const e of events) {
    const data = typeof e === 'string' ? e : JSON.stringify(e);
    if (!x.res.write(before + field + data + newline + newline)) await once(x.res, 'drain');
    if (gap) await pause(x, gap);
    if (x.res.destroyed) return;
  }
  if (end === 'destroy') {
    await sleep(50); // what was written should be under way
    x.res.destroy();
  } else {
    x.res.end();
  }
}

// byteByByte cuts the stream inside every character and every line.
async function byteByByte(x) {
  x.res.writeHead(200, { 'content-type': 'text/event-stream' });
  x.req.socket.setNoDelay(true);
  for (const e of answerEvents(x)) {
    for (const b of Buffer.from(`data: ${typeof e === 'string' ? e : JSON.stringify(e)}\n\n`)) {
      x.res.write(Buffer.of(b));
      await new Promise(setImmediate);
    }
  }
  x.res.end();
}

async function cutJSON(x) {
  const body = JSON.stringify(completion(x));
  x.res.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length });
  x.res.write(body.slice(0, body.length / 2));
  await sleep(50);
  x.res.destroy();
}

// pause waits, but not for a client that has left.
async function pause(x, ms) {
  const left = new AbortController();
  const leave = () => left.abort();
  x.res.once('close', leave);
  try {
    await sleep(ms, undefined, { signal: left.signal });
  } catch {
    throw new Error('client left');
  } finally {
    x.res.off('close', leave);
  }
}
