"""The official SDK against the gateway in demo mode."""

import asyncio
import base64
import hashlib
import os
import time
import unittest
import uuid
from typing import List, Literal

import openai
from pydantic import BaseModel

from helper import DEMO_URL, collect, context, demo, user

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def clock(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


class DemoTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = demo()

    @classmethod
    def tearDownClass(cls):
        cls.client.close()

    def test_chat(self):
        raw = self.client.chat.completions.with_raw_response.create(model="demo", messages=user("hi"))
        completion = raw.parse()
        self.assertEqual(completion.object, "chat.completion")
        self.assertEqual(completion.model, "demo")
        self.assertTrue(completion.choices[0].message.content.startswith("Hello!"))
        self.assertEqual(completion.choices[0].finish_reason, "stop")
        self.assertGreater(completion.usage.total_tokens, completion.usage.prompt_tokens)
        self.assertEqual(raw.headers["x-apiproxy-fidelity"], "exact")
        self.assertTrue(raw.headers["x-request-id"])

    def test_stream(self):
        stream = self.client.chat.completions.create(model="demo", messages=user("count to 20"), stream=True)
        self.assertEqual(collect(stream), " ".join(str(i) for i in range(1, 21)))

    def test_stream_with_usage(self):
        stream = self.client.chat.completions.create(
            model="demo", messages=user("count to 5"), stream=True, stream_options={"include_usage": True}
        )
        last = list(stream)[-1]
        self.assertEqual(last.choices, [])
        self.assertEqual(last.usage.completion_tokens, 5)

    def test_stream_helper(self):
        with self.client.chat.completions.stream(model="demo", messages=user("count to 5")) as stream:
            pieces = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
        self.assertEqual("".join(pieces), "1 2 3 4 5")
        self.assertEqual(final.choices[0].message.content, "1 2 3 4 5")

    def test_streamed_response_object(self):
        with self.client.chat.completions.with_streaming_response.create(model="demo", messages=user("count to 5")) as response:
            self.assertEqual(response.parse().choices[0].message.content, "1 2 3 4 5")

    def test_async(self):
        async def run():
            async with openai.AsyncOpenAI(base_url=f"{DEMO_URL}/v1", api_key="demo") as client:
                stream = await client.chat.completions.create(model="demo", messages=user("count to 5"), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        self.assertEqual(asyncio.run(run()), "1 2 3 4 5")

    def test_n_stop_and_max_tokens(self):
        two = self.client.chat.completions.create(model="demo", messages=user("count to 9"), n=2)
        self.assertEqual([c.index for c in two.choices], [0, 1])
        self.assertTrue(two.choices[1].message.content.endswith("8 9"))
        stopped = self.client.chat.completions.create(model="demo", messages=user("count to 9"), stop=["4"])
        self.assertEqual(stopped.choices[0].message.content, "1 2 3 ")
        limited = self.client.chat.completions.create(model="demo", messages=user("count to 9"), max_completion_tokens=2)
        self.assertEqual(limited.choices[0].finish_reason, "length")

    def test_logprobs(self):
        completion = self.client.chat.completions.create(
            model="demo", messages=user("count to 3"), logprobs=True, top_logprobs=2
        )
        tokens = completion.choices[0].logprobs.content
        self.assertEqual("".join(t.token for t in tokens), "1 2 3")
        self.assertEqual(len(tokens[0].top_logprobs), 2)

    def test_reasoning(self):
        completion = self.client.chat.completions.create(model="demo-reasoning", messages=user("hi"))
        self.assertIn("conversation", completion.choices[0].message.reasoning_content)
        self.assertGreater(completion.usage.completion_tokens_details.reasoning_tokens, 0)

    def test_tools(self):
        messages = user("The weather in Paris?")
        first = self.client.chat.completions.create(model="demo-tools", messages=messages, tools=[WEATHER])
        choice = first.choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        call = choice.message.tool_calls[0]
        self.assertEqual((call.function.name, call.function.arguments), ("weather", '{"city":"Paris"}'))
        messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}]
        second = self.client.chat.completions.create(model="demo-tools", messages=messages, tools=[WEATHER])
        self.assertIn("> 18 degrees", second.choices[0].message.content)

    def test_parallel_tools_streamed(self):
        with self.client.chat.completions.stream(
            model="demo-tools", messages=user("call both"), tools=[clock("one"), clock("two")]
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        self.assertEqual([c.function.name for c in message.tool_calls], ["one", "two"])
        self.assertEqual(len({c.id for c in message.tool_calls}), 2)

    def test_structured_output(self):
        class Guest(BaseModel):
            name: str

        class Booking(BaseModel):
            guest: Guest
            people: int
            kind: Literal["lunch", "dinner"]
            notes: List[str]

        request = {"model": "demo", "messages": user("A table for Ada Lovelace, 4 people"), "response_format": Booking}
        want = Booking(guest=Guest(name="Ada Lovelace"), people=4, kind="lunch", notes=["Ada Lovelace"])
        self.assertEqual(self.client.chat.completions.parse(**request).choices[0].message.parsed, want)
        with self.client.chat.completions.stream(**request) as stream:
            self.assertEqual(stream.get_final_completion().choices[0].message.parsed, want)

    def test_image_of_4_mb(self):
        url = "data:image/png;base64," + base64.b64encode(os.urandom(4 << 20)).decode()
        parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        completion = self.client.chat.completions.create(model="demo", messages=user(parts))
        self.assertIn("1 image** (4194304 bytes)", completion.choices[0].message.content)

    def test_models(self):
        ids = [model.id for model in self.client.models.list()]
        self.assertIn("demo-tools", ids)
        self.assertEqual(self.client.models.retrieve("demo").owned_by, "apiproxy-demo")
        with self.assertRaises(openai.NotFoundError) as raised:
            self.client.models.retrieve("org/nothing")
        self.assertEqual(raised.exception.code, "model_not_found")

    def test_embeddings(self):
        texts = ["the cat sat", "the cat ran"]
        packed = self.client.embeddings.create(model="demo", input=texts)
        listed = self.client.embeddings.create(model="demo", input=texts, encoding_format="float")
        self.assertEqual([len(d.embedding) for d in packed.data], [16, 16])
        for a, b in zip(packed.data, listed.data):
            for x, y in zip(a.embedding, b.embedding):
                self.assertAlmostEqual(x, y, places=6)

    def test_upload_of_8_mb(self):
        content = os.urandom(8 << 20)
        file = self.client.files.create(file=("batch.jsonl", content), purpose="batch")
        self.assertEqual((file.bytes, file.filename), (len(content), "batch.jsonl"))
        self.assertEqual(file.id, "file-" + hashlib.sha256(content).hexdigest()[:24])

    def test_legacy_completions(self):
        whole = self.client.completions.create(model="demo", prompt="count to 4")
        self.assertEqual(whole.choices[0].text, "1 2 3 4")
        stream = self.client.completions.create(model="demo", prompt="count to 4", stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in stream), "1 2 3 4")

    def test_errors(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="nothing", messages=user("hi"))
        with self.assertRaises(openai.BadRequestError) as raised:
            self.client.chat.completions.create(model="demo", messages=[])
        self.assertEqual(raised.exception.param, "messages")
        with self.assertRaises(openai.AuthenticationError) as raised:
            self.client.with_options(api_key="demo-").chat.completions.create(model="demo", messages=user("hi"))
        self.assertEqual(raised.exception.code, "invalid_api_key")

    def test_rate_limit_honours_retry_after(self):
        started = time.monotonic()
        with self.assertRaises(openai.RateLimitError):
            self.client.with_options(max_retries=1).chat.completions.create(model="demo-429", messages=user("hi"))
        self.assertGreaterEqual(time.monotonic() - started, 1)

    def test_broken_answer(self):
        client = self.client.with_options(max_retries=0)
        text = ""
        with self.assertRaises(openai.APIError):
            for chunk in client.chat.completions.create(model="demo-broken", messages=user("hi"), stream=True):
                text += chunk.choices[0].delta.content or ""
        self.assertTrue(text.startswith("Hello!"), text)
        with self.assertRaises(openai.InternalServerError) as raised:
            client.chat.completions.create(model="demo-broken", messages=user("hi"))
        self.assertEqual(raised.exception.status_code, 502)

    def test_session_continues(self):
        for stream in (False, True):
            with self.subTest(stream=stream):
                session = f"python-{uuid.uuid4()}"
                client = self.client.with_options(default_headers={"X-Session-Id": session})

                def say(text):
                    answer = client.chat.completions.create(model="demo", messages=user(text), stream=stream)
                    return collect(answer) if stream else answer.choices[0].message.content

                say("my name is Ada")
                answer = say("what is my name?")
                self.assertIn("**Ada**", answer)
                self.assertIn("3 messages", answer)
                status, body = context(DEMO_URL, "demo", session)
                self.assertEqual((status, body["session_id"]), (200, session))
                self.assertEqual([m["role"] for m in body["messages"]], ["user", "assistant"] * 2)
                self.assertEqual(body["messages"][3]["content"], answer)
                self.assertEqual(context(DEMO_URL, "demo", session + "x")[0], 404)

    def test_session_takes_a_tool_round_trip(self):
        session = f"python-{uuid.uuid4()}"
        client = self.client.with_options(default_headers={"X-Session-Id": session})
        first = client.chat.completions.create(model="demo-tools", messages=user("The time?"), tools=[clock("clock")])
        call = first.choices[0].message.tool_calls[0]
        answer = {"role": "tool", "tool_call_id": call.id, "content": "noon"}
        second = client.chat.completions.create(model="demo-tools", messages=[answer], tools=[clock("clock")])
        self.assertIn("> noon", second.choices[0].message.content)
        _, body = context(DEMO_URL, "demo", session)
        self.assertEqual([m["role"] for m in body["messages"]], ["user", "assistant", "tool", "assistant"])


if __name__ == "__main__":
    unittest.main()
