// What both suites need: clients for the gateways that ../run started, and a
// look at what the scripted upstream saw.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';

const env = (name) => process.env[name] ?? assert.fail(`${name} is not set: start the suites with e2e/run`);

export const demoURL = env('DEMO_URL'); // -demo
export const gatewayURL = env('GATEWAY_URL'); // in front of the scripted upstream
export const plainURL = env('PLAIN_URL'); // the same, MASK_AS_BROWSER=false and UPSTREAM_TIMEOUT=2
export const upstreamURL = env('UPSTREAM_URL');
export const upstreamKey = env('UPSTREAM_KEY');
export const aliceKey = env('ALICE_KEY');
export const bobKey = env('BOB_KEY');

export const user = (content) => [{ role: 'user', content }];

export const demo = (options = {}) => new OpenAI({ baseURL: `${demoURL}/v1`, apiKey: 'demo', ...options });
export const alice = (options = {}) => new OpenAI({ baseURL: `${gatewayURL}/v1`, apiKey: aliceKey, ...options });
export const bob = (options = {}) => new OpenAI({ baseURL: `${gatewayURL}/v1`, apiKey: bobKey, ...options });
export const plain = (options = {}) => new OpenAI({ baseURL: `${plainURL}/v1`, apiKey: aliceKey, ...options });

// unique is a model name of this test's own with that behaviour.
export const unique = (behaviour) => `${behaviour}/${randomUUID()}`;

// seen is what the upstream received under a model name or request id.
export async function seen(of) {
  return (await fetch(`${upstreamURL}/__requests?of=${encodeURIComponent(of)}`)).json();
}

// seenBody is the bytes of the last body that the upstream received.
export async function seenBody(of) {
  const answer = await fetch(`${upstreamURL}/__body?of=${encodeURIComponent(of)}`);
  return Buffer.from(await answer.arrayBuffer());
}

// assertAborted checks that the upstream saw its client leave within a second.
export async function assertAborted(of, leftAt) {
  for (let i = 0; i < 60; i++) {
    const at = (await seen(of)).at(-1)?.abortedAt ?? 0;
    if (at) return assert.ok(at - leftAt < 1000, `the upstream noticed after ${at - leftAt} ms`);
    await sleep(50);
  }
  assert.fail('the upstream never noticed that the client had left');
}

// post sends exact bytes to a chat endpoint, without a client library.
export function post(url, body, headers = {}) {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${url === demoURL ? 'demo' : aliceKey}`, 'content-type': 'application/json', ...headers },
    body,
  });
}

// context reads a session.
export async function context(url, key, session) {
  const answer = await fetch(`${url}/context/${session}`, { headers: { authorization: `Bearer ${key}` } });
  return { status: answer.status, body: await answer.json() };
}

// collect joins the deltas of a stream.
export async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const deltas = chunks.flatMap((c) => c.choices ?? []).filter((c) => c.index === 0);
  return { chunks, text: deltas.map((c) => c.delta.content ?? '').join(''), finish: deltas.at(-1)?.finish_reason };
}
