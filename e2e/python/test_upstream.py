"""The official SDK against the gateway in front of an upstream that misbehaves."""

import asyncio
import base64
import json
import os
import time
import unittest
import uuid

import openai

from helper import (
    ALICE_KEY, GATEWAY_URL, UPSTREAM_KEY,
    alice, assert_aborted, collect, context, plain, seen, seen_body, unique, user,
)

# Errors: class and fields as if the upstream had been asked directly, except
# where its failure is not the client's.
FAILURES = [
    ("400", openai.BadRequestError, 400, "unsupported_value"),
    ("404", openai.NotFoundError, 404, "model_not_found"),
    ("409", openai.ConflictError, 409, "conflict"),
    ("422", openai.UnprocessableEntityError, 422, None),
    ("fastapi-422", openai.UnprocessableEntityError, 422, None),
    ("429", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("error-200", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("500", openai.InternalServerError, 500, None),
    ("503", openai.InternalServerError, 503, "server_is_overloaded"),
    ("401", openai.InternalServerError, 502, "upstream_auth"),
    ("403", openai.InternalServerError, 502, "upstream_auth"),
    ("html-502", openai.InternalServerError, 502, None),
    ("html-404", openai.InternalServerError, 502, None),
    ("html-200", openai.InternalServerError, 502, "upstream_malformed"),
    ("cut-json", openai.InternalServerError, 502, None),
    ("redirect", openai.InternalServerError, 502, None),
    ("hang-up", openai.InternalServerError, 502, None),
]


class UpstreamTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = alice()
        cls.once = cls.client.with_options(max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def ask(self, client, behaviour, **extra):
        model = behaviour if "/" in behaviour else unique(behaviour)
        return client.chat.completions.create(**{"model": model, "messages": user("hi"), **extra})

    def test_error_classes(self):
        for behaviour, kind, status, code in FAILURES:
            with self.subTest(behaviour), self.assertRaises(kind) as raised:
                self.ask(self.once, behaviour)
            with self.subTest(behaviour):
                self.assertEqual(raised.exception.status_code, status)
                if code:
                    self.assertEqual(raised.exception.code, code)
                self.assertTrue(raised.exception.body["message"])
                self.assertNotIn(UPSTREAM_KEY, str(raised.exception))

    def test_retries_that_succeed(self):
        for behaviour, attempts, wait in (("retry-429", 2, 0.9), ("retry-429-ms", 2, 0.045), ("retry-500", 3, 0), ("retry-hang-up", 2, 0)):
            with self.subTest(behaviour):
                model = unique(behaviour)
                self.assertEqual(self.ask(self.client, model).choices[0].message.content, "You said: hi")
                requests = seen(model)
                self.assertEqual(len(requests), attempts)
                self.assertGreaterEqual((requests[-1]["at"] - requests[-2]["at"]) / 1000, wait)

    def test_number_of_tries(self):
        for behaviour, attempts in (("429", 3), ("500", 3), ("503", 3), ("quota", 1), ("401", 1), ("400", 1)):
            with self.subTest(behaviour):
                model = unique(behaviour)
                with self.assertRaises(openai.APIStatusError):
                    self.ask(self.client, model)
                self.assertEqual(len(seen(model)), attempts)

    def test_the_form_that_was_asked_for(self):
        completion = self.ask(self.once, "sse-for-json")
        self.assertEqual(completion.choices[0].message.content, "You said: hi")
        self.assertEqual(collect(self.ask(self.once, "json-for-stream", stream=True)), "You said: hi")

    def test_streams(self):
        said = "hällo 你好 😀 <b>"
        for behaviour in ("ok", "usage-every", "usage-finish", "crlf", "comments", "no-space", "byte-by-byte", "no-done", "vendor-fields"):
            with self.subTest(behaviour):
                stream = self.ask(self.once, behaviour, stream=True, messages=user(said))
                self.assertEqual(collect(stream), f"You said: {said}")

    def test_event_of_5_mb(self):
        self.assertEqual(collect(self.ask(self.once, "big-event", stream=True)), "abcdefghij" * 524288)

    def test_streams_that_end_badly(self):
        for behaviour in ("cut-stream", "early-end", "error-in-stream"):
            with self.subTest(behaviour):
                text = ""
                with self.assertRaises(openai.APIError):
                    for chunk in self.ask(self.once, behaviour, stream=True):
                        text += chunk.choices[0].delta.content or ""
                self.assertEqual(text, "You said: ")
        with self.assertRaises(openai.APIError) as raised:
            collect(self.ask(self.once, "error-first", stream=True))
        self.assertEqual(raised.exception.code, "fell_over")

    def test_closing_a_stream_frees_the_upstream(self):
        model = unique("slow-stream")
        stream = self.ask(self.once, model, stream=True)
        next(stream), next(stream)
        stream.close()
        assert_aborted(model, time.time())

    def test_cancelling_a_task_frees_the_upstream(self):
        model = unique("slow-first")

        async def run():
            async with openai.AsyncOpenAI(base_url=f"{GATEWAY_URL}/v1", api_key=ALICE_KEY) as client:
                task = asyncio.create_task(client.chat.completions.create(model=model, messages=user("hi")))
                await asyncio.sleep(0.4)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                return time.time()

        assert_aborted(model, asyncio.run(run()))

    def test_timeouts(self):
        model = unique("slow-first")
        with self.assertRaises(openai.APITimeoutError):
            self.ask(self.once, model, timeout=0.4)
        assert_aborted(model, time.time())
        with plain(max_retries=0) as client, self.assertRaises(openai.InternalServerError) as raised:
            self.ask(client, "slow-first")
        self.assertEqual((raised.exception.status_code, raised.exception.code), (504, "upstream_timeout"))

    def test_unreachable_gateway(self):
        with alice(max_retries=0) as client, self.assertRaises(openai.APIConnectionError):
            client.with_options(base_url="http://127.0.0.1:9/v1").models.list()

    def test_unknown_parameters_reach_the_upstream(self):
        model = unique("ok")
        extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 40, "guided_json": {"z": 1, "a": [1.5, None]}}
        raw = self.once.chat.completions.with_raw_response.create(model=model, messages=user("<é>"), extra_body=extra)
        self.assertEqual(raw.headers["x-apiproxy-fidelity"], "exact")
        self.assertEqual(json.loads(seen_body(model)), {"model": model, "messages": user("<é>"), **extra})

    def test_request_of_4_mb(self):
        model = unique("ok")
        url = "data:image/png;base64," + base64.b64encode(os.urandom(4 << 20)).decode()
        self.ask(self.once, model, messages=user([{"type": "image_url", "image_url": {"url": url}}]))
        self.assertEqual(json.loads(seen_body(model))["messages"][0]["content"][0]["image_url"]["url"], url)

    def test_upload_is_forwarded(self):
        request_id, content = str(uuid.uuid4()), os.urandom(8 << 20)
        self.once.files.create(file=("a.bin", content), purpose="batch", extra_headers={"X-Request-Id": request_id})
        self.assertEqual(seen(request_id)[0]["path"], "/v1/files")
        self.assertIn(content, seen_body(request_id))

    def test_request_headers(self):
        model = unique("ok")
        self.ask(self.once, model, extra_headers={
            "Cookie": "a=1", "X-Internal": "secret", "X-Session-Id": str(uuid.uuid4()), "OpenAI-Beta": "x=v1", "Idempotency-Key": "k1",
        })
        headers = seen(model)[0]["headers"]
        self.assertEqual(headers["authorization"], f"Bearer {UPSTREAM_KEY}")
        self.assertTrue(headers["user-agent"].startswith("Mozilla/5.0"))
        self.assertEqual((headers["openai-beta"], headers["idempotency-key"]), ("x=v1", "k1"))
        unwanted = {"cookie", "x-internal", "x-session-id", *(h for h in headers if h.startswith("x-stainless-"))}
        self.assertEqual(unwanted & set(headers), set())
        self.assertNotIn(ALICE_KEY, json.dumps(headers))

    def test_request_headers_unmasked(self):
        model = unique("ok")
        with plain() as client:
            self.ask(client, model)
        headers = seen(model)[0]["headers"]
        self.assertTrue(headers["user-agent"].startswith("OpenAI/Python"))
        self.assertEqual(headers["x-stainless-lang"], "python")

    def test_response_headers(self):
        raw = self.once.chat.completions.with_raw_response.create(
            model=unique("headers"), messages=user("hi"), extra_headers={"X-Request-Id": "my-id-2"}
        )
        self.assertEqual(raw.headers["x-request-id"], "my-id-2")
        self.assertEqual(raw.headers["x-upstream-request-id"], "req_upstream")
        self.assertEqual(raw.headers["x-ratelimit-remaining-requests"], "59")
        self.assertNotIn("set-cookie", raw.headers)

    def test_upstream_key_never_comes_down(self):
        raw = self.once.chat.completions.with_raw_response.create(model=unique("leak-json"), messages=user("hi"))
        self.assertNotIn(UPSTREAM_KEY, raw.text + str(raw.headers))
        self.assertEqual(len(raw.parse().choices[0].message.content), len(f"my key is {UPSTREAM_KEY}"))
        self.assertNotIn(UPSTREAM_KEY, collect(self.ask(self.once, "leak-stream", stream=True)))

    def test_models(self):
        ids = [model.id for model in self.client.models.list()]
        self.assertEqual(ids, ["plain", "org/model-a", "org/team/model:b"])
        for model_id in ids:
            self.assertEqual(self.client.models.retrieve(model_id).id, model_id)

    def test_session(self):
        session = str(uuid.uuid4())
        client = self.once.with_options(default_headers={"X-Session-Id": session})
        collect(self.ask(client, "ok", stream=True, messages=user("one")))
        with self.assertRaises(openai.APIError):
            collect(self.ask(client, "cut-stream", stream=True, messages=user("lost")))
        model = unique("ok")
        raw = client.chat.completions.with_raw_response.create(model=model, messages=user("two"))
        self.assertEqual((raw.headers["x-apiproxy-fidelity"], raw.headers["x-session-messages"]), ("spliced", "2"))
        sent = json.loads(seen_body(model))["messages"]
        self.assertEqual([m["content"] for m in sent], ["one", "You said: one", "two"])
        status, body = context(GATEWAY_URL, ALICE_KEY, session)
        self.assertEqual(status, 200)
        self.assertEqual([m["content"] for m in body["messages"]], ["one", "You said: one", "two", "You said: two"])


if __name__ == "__main__":
    unittest.main()
