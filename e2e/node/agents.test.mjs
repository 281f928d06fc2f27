// What coding agents and frameworks send, as raw requests: the shapes that were
// seen on the wire, and what must reach the upstream of them.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { aliceKey, context, gatewayURL, seen, seenBody, unique, user } from './helper.mjs';
import { assertExtends, events, noArguments, patch, send, sent, thought } from './dialects.mjs';

const text = (t, extra = {}) => ({ type: 'text', text: t, ...extra });
const cached = { cache_control: { type: 'ephemeral', ttl: '1h' } };
const dialect = 'https://json-schema.org/draft/2020-12/schema';

// Claude Code.
const claudeHeaders = (session) => ({
  'x-api-key': aliceKey, authorization: '', 'anthropic-version': '2023-06-01',
  'anthropic-beta': 'claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24',
  'user-agent': 'claude-cli/2.1.0 (external, cli)', 'x-app': 'cli', 'x-claude-code-session-id': session, 'x-stainless-lang': 'js',
});

// claudeCode is one turn's body; hash differs from turn to turn.
const claudeCode = (model, hash, messages) => ({
  model,
  messages,
  system: [
    text(`x-anthropic-billing-header: cc_version=2.1.0.abc; cc_entrypoint=cli; cch=${hash};`),
    text('You are an interactive agent.', cached),
    text('# Environment\nx-anthropic-billing-header: stays here', cached),
  ],
  tools: [
    {
      name: 'Bash', description: 'Runs a command.',
      input_schema: { $schema: dialect, type: 'object', properties: { command: { type: 'string' }, timeout: { type: 'number' } }, required: ['command'], additionalProperties: false },
    },
    { name: 'NotebookEdit', description: 'Edits a notebook.', defer_loading: true, input_schema: { $schema: dialect, type: 'object', properties: {} }, ...cached },
  ],
  metadata: { user_id: JSON.stringify({ device_id: 'd'.repeat(64), account_uuid: '', session_id: randomUUID() }) },
  max_tokens: 32000,
  thinking: { type: 'adaptive', display: 'omitted' },
  context_management: { edits: [{ type: 'clear_thinking_20251015', keep: 'all' }] },
  output_config: { effort: 'high' },
  stream: true,
});

const claudeStart = [
  { role: 'user', content: [text('<system-reminder>\nToday is Monday.\n</system-reminder>'), text('list the files', cached)] },
];

test('Claude Code, two turns with a tool', async () => {
  const model = unique('needs-reasoning');
  const headers = claudeHeaders(randomUUID());
  const reminder = 'The task list is empty.';
  const body = claudeCode(model, 'a1b2c', [...claudeStart, { role: 'system', content: [text(reminder)] }]);
  const first = await send(gatewayURL, '/v1/messages?beta=true', body, headers);
  assert.equal(first.status, 200, first.text);
  const firstSent = await seenBody(model);
  assert.deepEqual(JSON.parse(firstSent), {
    model,
    messages: [
      { role: 'system', content: 'You are an interactive agent.\n\n# Environment\nx-anthropic-billing-header: stays here' },
      { role: 'user', content: '<system-reminder>\nToday is Monday.\n</system-reminder>\n\nlist the files' },
      { role: 'system', content: reminder },
    ],
    tools: body.tools.map((t) => ({ type: 'function', function: { name: t.name, description: t.description, parameters: t.input_schema } })),
    max_tokens: 32000, reasoning_effort: 'high', user: body.metadata.user_id,
    stream: true, stream_options: { include_usage: true },
  });
  assert.doesNotMatch(firstSent.toString(), /cache_control|context_management|defer_loading|adaptive/);

  // The thinking stays in its place without its text, and needs a signature.
  const blocks = events(first.text).filter((e) => e.event === 'content_block_start').map((e) => e.data.content_block);
  assert.deepEqual(blocks.map((b) => b.type), ['thinking', 'tool_use', 'tool_use']);
  assert.doesNotMatch(first.text, /therefore/);
  const signature = events(first.text).find((e) => e.data.delta?.type === 'signature_delta').data.delta.signature;
  assert.ok(signature);

  const [, bash, edit] = blocks;
  const answered = (id) => ({ type: 'tool_result', tool_use_id: id, content: 'a.txt', ...cached });
  const next = claudeCode(model, 'd4e5f', [
    ...claudeStart,
    { role: 'system', content: reminder },
    {
      role: 'assistant',
      content: [{ type: 'thinking', thinking: '', signature }, ...[bash, edit].map(({ id, name }) => ({ type: 'tool_use', id, name, input: { b: 1, a: 2 } }))],
    },
    { role: 'user', content: [answered(bash.id), answered(edit.id)] },
  ]);
  const second = await send(gatewayURL, '/v1/messages?beta=true', next, headers);
  assert.equal(second.status, 200, second.text);
  assertExtends(await seenBody(model), firstSent);
  const { messages } = await sent(model);
  assert.deepEqual(messages.slice(3).map((m) => [m.role, m.reasoning_content, m.tool_call_id, m.content]), [
    ['assistant', thought, undefined, null],
    ['tool', undefined, bash.id, 'a.txt'],
    ['tool', undefined, edit.id, 'a.txt'],
  ]);
});

test('Claude Code, what it asks besides', async () => {
  const head = await fetch(`${gatewayURL}/`, { method: 'HEAD' });
  assert.equal(head.status, 200);
  const { system, tools } = claudeCode('plain', '0', []);
  const counted = await send(gatewayURL, '/v1/messages/count_tokens?beta=true', { model: 'plain', messages: claudeStart, system, tools }, claudeHeaders(randomUUID()));
  assert.equal(counted.status, 200);
  assert.ok(counted.json().input_tokens > 100);
  const models = await send(gatewayURL, '/v1/models?limit=1000', undefined, claudeHeaders(randomUUID()));
  assert.deepEqual(models.json().data.map((m) => m.type), ['model', 'model', 'model']);
  assert.equal(models.json().has_more, false);
});

test('Claude Code, a large body packed', async () => {
  const model = unique('ok');
  const body = JSON.stringify({ model, max_tokens: 9, messages: user('word '.repeat(100000)) });
  for (const [encoding, packed] of [['gzip', zlib.gzipSync(body)], ['deflate', zlib.deflateSync(body)], ['deflate', zlib.deflateRawSync(body)]]) {
    const answer = await send(gatewayURL, '/v1/messages', packed, { 'content-encoding': encoding });
    assert.equal(answer.status, 200, answer.text);
    assert.equal((await sent(model)).messages[0].content.length, 500000);
  }
  const corrupt = await send(gatewayURL, '/v1/messages', zlib.gzipSync(body).subarray(0, 300), { 'content-encoding': 'gzip' });
  assert.deepEqual([corrupt.status, corrupt.json().type], [400, 'error']);
  const unknown = await send(gatewayURL, '/v1/messages', zlib.brotliCompressSync(body), { 'content-encoding': 'br' });
  assert.deepEqual([unknown.status, unknown.json().type], [415, 'error']);
  assert.match(unknown.headers.get('accept-encoding'), /gzip/);
});

test('the thread of a tool runner is declined so that it sends everything', async () => {
  for (const thread of [{ type: 'create' }, { type: 'continue', previous_message_id: 'msg_1' }]) {
    const model = unique('ok');
    const answer = await send(gatewayURL, '/v1/messages?beta=true', { model, max_tokens: 9, messages: user('hi'), thread }, { 'anthropic-beta': 'message-threads-2026-08-12' });
    const { error } = answer.json();
    assert.deepEqual([answer.status, error.type], [400, 'invalid_request_error']);
    assert.deepEqual(error.details, { error_code: 'thread_unsupported_request', unsupported: ['thread'] });
    assert.deepEqual(await seen(model), []);
  }
});

test('a signature for every thinking block, as the AI SDK wants it', async () => {
  const answer = await send(gatewayURL, '/v1/messages', { model: unique('reasoning'), max_tokens: 2000, messages: user('hi'), thinking: { type: 'enabled', budget_tokens: 1024 } });
  const [block] = answer.json().content;
  assert.equal(block.thinking, thought);
  assert.ok(typeof block.signature === 'string' && block.signature);
});

// Codex.
const codexHeaders = (thread) => ({
  accept: 'text/event-stream', originator: 'codex_cli_rs', 'user-agent': 'codex_cli_rs/0.169.0', 'session-id': thread, 'thread-id': thread,
  'x-client-request-id': thread, 'x-codex-turn-metadata': '{"sandbox":"none"}', 'x-codex-window-id': '1',
});
const says = (role, ...texts) => ({ type: 'message', role, content: texts.map((t) => ({ type: role === 'assistant' ? 'output_text' : 'input_text', text: t })) });
const codex = (model, input, extra = {}) => ({
  model,
  input,
  tools: [
    { type: 'function', name: 'exec_command', description: 'Runs a command.', strict: false, parameters: { type: 'object', properties: { cmd: { type: 'string' } }, required: ['cmd'], additionalProperties: false } },
    { type: 'custom', name: 'apply_patch', description: 'Edits files.', format: { type: 'grammar', syntax: 'lark', definition: 'start: begin_patch hunk+ end_patch' } },
    { type: 'namespace', name: 'mcp__docs', description: 'Documents.', tools: [{ type: 'function', name: 'search', description: 'Searches.', strict: false, parameters: noArguments }] },
    { type: 'web_search', external_web_access: false },
  ],
  tool_choice: 'auto', parallel_tool_calls: true, reasoning: { summary: 'auto' }, store: false, stream: true,
  include: ['reasoning.encrypted_content'], prompt_cache_key: randomUUID(), client_metadata: { 'x-codex-installation-id': randomUUID() },
  ...extra,
});
const codexStart = [says('developer', '<permissions>ask</permissions>', 'Be brief.'), says('user', '# AGENTS.md', '<environment>linux</environment>'), says('user', 'fix it')];

test('Codex, two turns with every kind of tool', async () => {
  const model = unique('needs-reasoning');
  const headers = codexHeaders(randomUUID());
  const body = codex(model, codexStart);
  const first = await send(gatewayURL, '/v1/responses', body, headers);
  assert.equal(first.status, 200, first.text);
  assert.match(first.headers.get('x-apiproxy-dropped'), /web_search/);
  const firstSent = await seenBody(model);
  const { messages, tools, ...rest } = JSON.parse(firstSent);
  assert.deepEqual(messages, [
    { role: 'system', content: '<permissions>ask</permissions>\n\nBe brief.' },
    { role: 'user', content: '# AGENTS.md\n\n<environment>linux</environment>' },
    { role: 'user', content: 'fix it' },
  ]);
  assert.deepEqual(tools.map((t) => t.function.name), ['exec_command', 'apply_patch', 'mcp__docs__search']);
  assert.match(tools[1].function.description, /Edits files\.[^]*start: begin_patch/);
  assert.deepEqual(rest, { model, prompt_cache_key: body.prompt_cache_key, stream: true, stream_options: { include_usage: true } });

  const list = events(first.text);
  assert.equal(list.at(-1).data, '[DONE]');
  assert.equal(list.at(-2).event, 'response.completed');
  const items = list.filter((e) => e.event === 'response.output_item.done').map((e) => e.data.item);
  assert.deepEqual(items.map((i) => [i.type, i.name, i.namespace]), [
    ['reasoning', undefined, undefined],
    ['function_call', 'exec_command', undefined],
    ['custom_tool_call', 'apply_patch', undefined],
    ['function_call', 'search', 'mcp__docs'],
  ]);
  assert.ok(items[0].encrypted_content);
  assert.equal(items[2].input, patch);
  assert.deepEqual(list.at(-2).data.response.output, items);

  const outputs = [items[1], items[3]].map((i) => ({ type: 'function_call_output', call_id: i.call_id, output: 'done' }));
  const patched = { type: 'custom_tool_call_output', call_id: items[2].call_id, output: 'Success.' };
  const second = await send(gatewayURL, '/v1/responses', codex(model, [...codexStart, ...items, outputs[0], patched, outputs[1]], { prompt_cache_key: body.prompt_cache_key }), headers);
  assert.equal(second.status, 200, second.text);
  assertExtends(await seenBody(model), firstSent);
  const replayed = (await sent(model)).messages.slice(3);
  assert.deepEqual(replayed.map((m) => m.role), ['assistant', 'tool', 'tool', 'tool']);
  assert.equal(replayed[0].reasoning_content, thought);
  assert.deepEqual(replayed[0].tool_calls.map((c) => c.function.name), ['exec_command', 'apply_patch', 'mcp__docs__search']);
  assert.deepEqual(JSON.parse(replayed[0].tool_calls[1].function.arguments), { input: patch });
});

test('Codex, an interrupted call and text before the output', async () => {
  const model = unique('ok');
  const call = (id) => ({ type: 'function_call', id: `fc_${id}`, call_id: id, name: 'exec_command', arguments: '{}', status: 'completed' });
  const input = [...codexStart, call('c1'), says('assistant', 'wait'), { type: 'function_call_output', call_id: 'c1', output: '1' }, call('c2'), says('user', 'stop')];
  const answer = await send(gatewayURL, '/v1/responses', codex(model, input, { stream: false }));
  assert.equal(answer.status, 200, answer.text);
  const { messages } = await sent(model);
  assert.deepEqual(messages.slice(3).map((m) => [m.role, m.content, m.tool_calls?.[0].id ?? m.tool_call_id]), [
    ['assistant', 'wait', 'c1'], ['tool', '1', 'c1'], ['assistant', null, 'c2'], ['tool', '[no output]', 'c2'], ['user', 'stop', undefined],
  ]);
});

test('a WebSocket is declined so that the client uses HTTP', async () => {
  const { port } = new URL(gatewayURL);
  const headers = { authorization: `Bearer ${aliceKey}`, connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' };
  const answer = await new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: '/v1/responses', headers }, resolve);
    request.on('error', reject).on('upgrade', () => reject(new Error('the connection was upgraded')));
  });
  answer.resume();
  assert.equal(answer.statusCode, 426);
});

test('a body packed in a way that is not taken says so', async () => {
  const answer = await send(gatewayURL, '/v1/responses', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 1, 0, 0]), { 'content-encoding': 'zstd' });
  assert.equal(answer.status, 415);
  assert.match(answer.headers.get('accept-encoding'), /gzip.*deflate/);
});

// gemini-cli.
const geminiHeaders = { 'x-goog-api-key': aliceKey, authorization: '', 'x-goog-api-client': 'google-genai-sdk/1.41.0 gl-node/v20' };
const turn = (role, ...parts) => ({ role, parts: parts.map((p) => (typeof p === 'string' ? { text: p } : p)) });
const geminiCLI = (contents) => ({
  contents,
  systemInstruction: turn('user', 'You are an interactive CLI agent.'),
  tools: [{
    functionDeclarations: Array.from({ length: 16 }, (_, i) => ({
      name: `tool_${i}`, description: `Tool ${i}.`, parametersJsonSchema: { $schema: dialect, type: 'object', properties: { path: { type: 'string' } }, required: ['path'] },
    })),
  }],
  generationConfig: { temperature: 1, topP: 0.95, topK: 64, thinkingConfig: { includeThoughts: true, thinkingBudget: 8192 } },
});

test('gemini-cli, on an upstream that refuses top_k', async () => {
  const model = unique('no-top_k');
  const path = `/v1beta/models/${model}:streamGenerateContent?alt=sse`;
  const start = [turn('user', 'This is the context.'), turn('model', 'Got it.'), turn('user', 'read a.txt')];
  const first = await send(gatewayURL, path, geminiCLI(start), geminiHeaders);
  assert.equal(first.status, 200, first.text);
  assert.match(first.headers.get('x-apiproxy-dropped'), /top_k/i);
  const firstSent = await seenBody(model);
  const { messages, tools, ...rest } = JSON.parse(firstSent);
  assert.deepEqual(messages.map((m) => m.role), ['system', 'user', 'assistant', 'user']);
  assert.deepEqual([tools.length, tools[15].function.parameters.required], [16, ['path']]);
  assert.deepEqual(rest, { model, temperature: 1, top_p: 0.95, reasoning_effort: 'medium', stream: true, stream_options: { include_usage: true } });
  assert.equal((await seen(model)).length, 2);

  const called = turn('model', { functionCall: { name: 'tool_0', args: { path: 'a.txt' }, id: 'tool_0-17-abc' }, thoughtSignature: 'c2lnbmVkIGVsc2V3aGVyZQ==' });
  const result = turn('user', { functionResponse: { id: 'tool_0-17-abc', name: 'tool_0', response: { output: 'hello' } } });
  const second = await send(gatewayURL, path, geminiCLI([...start, called, result]), geminiHeaders);
  assert.equal(second.status, 200, second.text);
  assert.equal((await seen(model)).length, 3);
  assertExtends(await seenBody(model), firstSent);
  assert.deepEqual((await sent(model)).messages.slice(4), [
    { role: 'assistant', content: null, tool_calls: [{ id: 'tool_0-17-abc', type: 'function', function: { name: 'tool_0', arguments: '{"path":"a.txt"}' } }] },
    { role: 'tool', tool_call_id: 'tool_0-17-abc', content: 'hello' },
  ]);
});

test('LangChain: function responses one by one, without ids', async () => {
  const model = unique('ok');
  const call = (args) => ({ functionCall: { name: 'f', args } });
  const result = (content) => turn('user', { functionResponse: { name: 'f', response: { content } } });
  const start = [turn('user', 'w?'), turn('model', call({ b: 1, a: 2 }), call({ c: 3 }))];
  const body = (contents) => ({
    contents, tools: [{ functionDeclarations: [{ name: 'f', description: 'F.', parameters: { type: 'object', properties: {} } }] }],
    generationConfig: { candidateCount: 1, stopSequences: [], temperature: 0.5 }, safetySettings: [],
  });
  const path = `/v1beta/models/${model}:streamGenerateContent?alt=sse`;
  const answer = await send(gatewayURL, path, body([...start, result('first'), result('second')]));
  assert.equal(answer.status, 200, answer.text);
  const firstSent = await seenBody(model);
  const { messages, stop, n } = JSON.parse(firstSent);
  assert.deepEqual([stop, n], [undefined, undefined]);
  assert.deepEqual(messages.map((m) => m.role), ['user', 'assistant', 'tool', 'tool']);
  assert.deepEqual(messages.slice(2).map((m) => m.tool_call_id), messages[1].tool_calls.map((c) => c.id));
  for (const { id } of messages[1].tool_calls) assert.match(id, /^[a-z0-9]{9}$/);

  // Usage is read only from a chunk that has a candidate.
  const last = events(answer.text).at(-1).data;
  assert.ok(last.candidates[0].content.parts.length > 0 && last.usageMetadata.totalTokenCount > 0);

  await send(gatewayURL, path, body([...start, result('first'), result('second'), turn('model', 'ok'), turn('user', 'again')]));
  assertExtends(await seenBody(model), firstSent);
});

// opencode.
test('opencode: two conversations under one id', async () => {
  const session = `ses_${randomUUID()}`;
  const headers = { 'x-session-id': session, 'x-session-affinity': session };
  const say = async (model, messages) => {
    const answer = await send(gatewayURL, '/v1/chat/completions', { model, messages, stream: true, stream_options: { include_usage: true } }, headers);
    assert.equal(answer.status, 200, answer.text);
    return answer;
  };
  const [title, main] = [unique('ok'), unique('ok')];
  const asked = [{ role: 'system', content: 'You write code.' }, ...user('fix it')];
  await say(title, [{ role: 'system', content: 'You write titles.' }, ...user('fix it')]);
  await say(main, asked);
  assert.deepEqual((await sent(main)).messages, asked);
  const whole = [...asked, { role: 'assistant', content: 'You said: fix it' }, ...user('more')];
  await say(main, whole);
  assert.deepEqual((await sent(main)).messages, whole);
  const { body } = await context(gatewayURL, aliceKey, session);
  assert.deepEqual(body.messages.map((m) => m.content), ['You write code.', 'fix it', 'You said: fix it', 'more', 'You said: more']);
});

// Any dialect on the chat path, answered as chat.
const chat = (body, headers) => send(gatewayURL, '/v1/chat/completions', body, headers);

test('dialects on the chat path', async () => {
  const call = { type: 'tool_use', id: 'a', name: 'f', input: {} };
  const hi = [{ role: 'user', content: 'hi' }];
  for (const [name, body, messages, headers] of [
    ['anthropic', { system: 's', messages: hi }, [{ role: 'system', content: 's' }, ...hi]],
    ['anthropic', { messages: hi, max_tokens: 5 }, hi, { 'anthropic-version': '2023-06-01' }],
    [
      'anthropic', { messages: [...hi, { role: 'assistant', content: [call] }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'a', content: '1' }] }] },
      [...hi, { role: 'assistant', content: null, tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }] }, { role: 'tool', tool_call_id: 'a', content: '1' }],
    ],
    ['gemini', { contents: [turn('user', 'hi')], systemInstruction: turn('user', 's') }, [{ role: 'system', content: 's' }, ...hi]],
    ['responses', { input: 'hi' }, hi],
    ['responses', { input: hi, instructions: 's' }, [{ role: 'system', content: 's' }, ...hi]],
    ['responses', { input: [{ role: 'user', content: 'hi' }, { role: 'model', content: [{ type: 'text', text: 'x' }] }, { role: 'user', content: 'y' }] }, [...hi, { role: 'assistant', content: 'x' }, { role: 'user', content: 'y' }]],
    ['responses', { input: [{ type: 'user_input', content: [text('hi')] }, { type: 'model_output', content: [text('b')] }, { type: 'user_input', content: [text('c')] }] }, [...hi, { role: 'assistant', content: 'b' }, { role: 'user', content: 'c' }]],
    ['responses', { input: [turn('user', 'hi')] }, hi],
    ['completion', { prompt: 'hi' }, hi],
  ]) {
    for (const stream of [false, true]) {
      const model = unique('ok');
      const answer = await chat({ model, stream, ...body }, headers);
      const label = `${JSON.stringify(body)}: ${answer.text}`;
      assert.equal(answer.status, 200, label);
      assert.equal(answer.headers.get('x-apiproxy-dialect'), name, label);
      assert.equal(answer.headers.get('x-apiproxy-fidelity'), 'converted', label);
      assert.deepEqual((await sent(model)).messages, messages);
      if (!stream) assert.equal(answer.json().object, 'chat.completion');
      else assert.equal(events(answer.text).at(-1).data, '[DONE]');
    }
  }
});

test('what only looks like another dialect passes byte for byte', async () => {
  const hi = user('hi');
  for (const [body, headers] of [
    [{ messages: hi, max_tokens: 5, prompt_cache_key: 'k' }, { 'anthropic-version': '2023-06-01' }],
    [{ messages: hi, thinking: { type: 'enabled' } }],
    [{ messages: [...hi, { role: 'assistant', content: [{ type: 'thinking', thinking: [text('x')] }] }, ...hi] }],
    [{ messages: hi, contents: [] }],
    [{ messages: user([text('hi', cached)]), metadata: { a: 'b' }, top_k: 4 }],
  ]) {
    const bytes = JSON.stringify({ model: unique('ok'), ...body });
    const answer = await chat(bytes, headers);
    assert.deepEqual([answer.status, answer.headers.get('x-apiproxy-fidelity')], [200, 'exact'], bytes);
    assert.equal((await seenBody(JSON.parse(bytes).model)).toString(), bytes);
  }
});

test('errors on the chat path are chat errors', async () => {
  for (const body of [{ model: 'ok', input: 7 }, { model: 'ok', input: [] }, { model: 'ok', messages: 'hi' }, { model: 'ok', prompt: ['a', 'b'] }, { model: 'ok', contents: [] }]) {
    const answer = await chat(body);
    assert.deepEqual([answer.status, answer.json().error.type], [400, 'invalid_request_error'], JSON.stringify(body));
  }
  const upstream = await chat({ model: unique('429'), system: 's', messages: user('hi') });
  assert.deepEqual([upstream.status, upstream.json().error.code], [429, 'rate_limit_exceeded']);
});

// Paths as clients put them together.
test('every route answers without its /v1 and under its maker', async () => {
  const body = () => ({ model: unique('ok'), max_tokens: 9, messages: user('hi') });
  for (const path of ['/v1/messages', '/messages', '/anthropic/v1/messages', '/anthropic/messages']) {
    assert.equal((await send(gatewayURL, path, body())).json().type, 'message', path);
  }
  for (const path of ['/v1/responses', '/responses', '/openai/v1/responses']) {
    assert.equal((await send(gatewayURL, path, { model: unique('ok'), input: 'hi' })).json().object, 'response', path);
  }
  for (const path of ['/gemini/v1beta/models/', '/v1/models/', '/v1alpha/models/']) {
    const answer = await send(gatewayURL, `${path}${unique('ok')}:generateContent`, { contents: 'hi' });
    assert.equal(answer.json().candidates?.length, 1, path);
  }
});

test('three shapes of the model list', async () => {
  const list = async (path, headers) => (await send(gatewayURL, path, undefined, headers)).json();
  assert.equal((await list('/v1/models')).object, 'list');
  assert.equal((await list('/v1/models', { 'anthropic-version': '2023-06-01' })).has_more, false);
  for (const [path, headers] of [['/v1beta/models', {}], ['/v1/models', { 'x-goog-api-key': aliceKey }]]) {
    assert.deepEqual((await list(path, headers)).models.map((m) => m.name), ['models/plain', 'models/org/model-a', 'models/org/team/model:b']);
  }
});
