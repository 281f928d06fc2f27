"""The official Anthropic SDK against the gateway: in demo mode, and in front of
an upstream that misbehaves."""

import asyncio
import time
import unittest
import uuid
from typing import Literal

import anthropic
from anthropic import beta_tool
from pydantic import BaseModel

from dialects import CITY, GOOD_ANSWERS, NO_ARGUMENTS, PICTURE_BASE64, THOUGHT, chat_gpt, claude, sent
from helper import ALICE_KEY, DEMO_URL, GATEWAY_URL, PLAIN_URL, UPSTREAM_KEY, assert_aborted, seen, unique, user

WEATHER = {"name": "weather", "description": "the weather in a city", "input_schema": CITY}
THINKING = {"type": "enabled", "budget_tokens": 1024}

# Behaviour, class, status, type.
FAILURES = [
    ("400", anthropic.BadRequestError, 400, "invalid_request_error"),
    ("404", anthropic.NotFoundError, 404, "not_found_error"),
    ("409", anthropic.ConflictError, 409, "conflict_error"),
    ("422", anthropic.BadRequestError, 400, "invalid_request_error"),
    ("429", anthropic.RateLimitError, 429, "rate_limit_error"),
    ("rate-first", anthropic.RateLimitError, 429, "rate_limit_error"),
    ("500", anthropic.InternalServerError, 500, "api_error"),
    ("503", anthropic.InternalServerError, 529, "overloaded_error"),
    ("overflow", anthropic.BadRequestError, 400, "invalid_request_error"),
    ("401", anthropic.InternalServerError, 502, "api_error"),
    ("html-200", anthropic.InternalServerError, 502, "api_error"),
    ("cut-json", anthropic.InternalServerError, 502, "api_error"),
    ("hang-up", anthropic.InternalServerError, 502, "api_error"),
]


def tool(name):
    return {"name": name, "input_schema": NO_ARGUMENTS}


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


class AnthropicTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.demo = claude(DEMO_URL)
        cls.once = claude(GATEWAY_URL)

    @classmethod
    def tearDownClass(cls):
        cls.demo.close()
        cls.once.close()

    def request(self, behaviour, **extra):
        model = behaviour if "/" in behaviour else unique(behaviour)
        return {"model": model, "max_tokens": 2000, "messages": user("hi"), **extra}

    def ask(self, behaviour, **extra):
        return self.once.messages.create(**self.request(behaviour, **extra))

    def ask_stream(self, behaviour, **extra):
        with self.once.messages.stream(**self.request(behaviour, **extra)) as stream:
            return stream.get_final_message()

    def both(self, behaviour, **extra):
        """The answer whole, and the answer put together from a stream."""
        model = behaviour if "/" in behaviour else unique(behaviour)
        return self.ask(model, **extra), self.ask_stream(model, **extra)

    def test_message(self):
        raw = self.demo.messages.with_raw_response.create(model="demo", max_tokens=500, messages=user("hi"))
        message = raw.parse()
        self.assertTrue(message.id.startswith("msg_"))
        self.assertEqual((message.model, message.role, message.stop_reason), ("demo", "assistant", "end_turn"))
        self.assertTrue(message.content[0].text.startswith("Hello!"))
        self.assertGreater(message.usage.input_tokens, 0)
        self.assertEqual(raw.headers["request-id"], raw.headers["x-request-id"])
        self.assertEqual(raw.headers["x-apiproxy-fidelity"], "converted")

    def test_stream(self):
        stream = self.demo.messages.create(model="demo", max_tokens=500, messages=user("count to 20"), stream=True)
        events = list(stream)
        self.assertEqual([events[0].type, events[-2].type, events[-1].type], ["message_start", "message_delta", "message_stop"])
        text = "".join(e.delta.text for e in events if e.type == "content_block_delta")
        self.assertEqual(text, " ".join(str(i) for i in range(1, 21)))
        self.assertEqual(events[-2].usage.output_tokens, 20)

    def test_stream_helper(self):
        with self.demo.messages.stream(model="demo", max_tokens=500, messages=user("count to 5")) as stream:
            self.assertEqual("".join(stream.text_stream), "1 2 3 4 5")
            final = stream.get_final_message()
        self.assertEqual((text_of(final), final.stop_reason, final.usage.output_tokens), ("1 2 3 4 5", "end_turn", 5))

    def test_async(self):
        async def run():
            async with anthropic.AsyncAnthropic(base_url=DEMO_URL, api_key="demo") as client:
                async with client.messages.stream(model="demo", max_tokens=500, messages=user("count to 5")) as stream:
                    return await stream.get_final_text()

        self.assertEqual(asyncio.run(run()), "1 2 3 4 5")

    def test_system_and_settings(self):
        model = unique("ok")
        system = [{"type": "text", "text": "Be short."}]
        self.ask(model, system=system, stop_sequences=["END"], max_tokens=77, extra_body={"temperature": 0.5})
        self.assertEqual(sent(model), {
            "model": model, "temperature": 0.5, "stop": ["END"], "max_tokens": 77,
            "messages": [{"role": "system", "content": "Be short."}, *user("hi")],
        })

    def test_tools(self):
        messages = user("The weather in Paris?")
        first = self.demo.messages.create(model="demo-tools", max_tokens=500, messages=messages, tools=[WEATHER])
        self.assertEqual(first.stop_reason, "tool_use")
        call = first.content[-1]
        self.assertEqual((call.name, call.input), ("weather", {"city": "Paris"}))
        messages += [{"role": "assistant", "content": first.content}]
        messages += user([{"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}])
        second = self.demo.messages.create(model="demo-tools", max_tokens=500, messages=messages, tools=[WEATHER])
        self.assertIn("> 18 degrees", text_of(second))

    def test_tool_runner(self):
        for stream in (False, True):
            with self.subTest(stream=stream):
                calls = []

                @beta_tool
                def weather(city: str) -> str:
                    """The weather in a city."""
                    calls.append(city)
                    return "18 degrees"

                runner = self.demo.beta.messages.tool_runner(
                    model="demo-tools", max_tokens=500, messages=user("The weather in New York?"), tools=[weather], stream=stream
                )
                self.assertIn("> 18 degrees", text_of(runner.until_done()))
                self.assertEqual(calls, ["New York"])

    def test_parallel_tools(self):
        tools = [tool("one"), tool("two")]
        for behaviour in ("calls", "calls-whole", "text-and-calls"):
            model = unique(behaviour)
            for message in self.both(model, tools=tools):
                with self.subTest(behaviour):
                    self.assertEqual(message.stop_reason, "tool_use")
                    calls = [block for block in message.content if block.type == "tool_use"]
                    self.assertEqual([(c.name, list(c.input)) for c in calls], [("one", ["b", "a"]), ("two", ["b", "a"])])
                    self.assertEqual(len({c.id for c in calls}), 2)
                    results = [{"type": "tool_result", "tool_use_id": c.id, "content": f"result of {c.name}"} for c in calls]
                    self.ask(model, tools=tools, messages=[*user("hi"), {"role": "assistant", "content": message.content}, *user(results)])
                    messages = sent(model)["messages"]
                    self.assertEqual([m["role"] for m in messages], ["user", "assistant", "tool", "tool"])
                    self.assertEqual([m["content"] for m in messages[2:]], ["result of one", "result of two"])

    def test_digits_of_arguments(self):
        for message in self.both("calls", tools=[tool("one")]):
            self.assertEqual(message.content[0].input, {"b": 1, "a": 9007199254740993})

    def test_image_of_4_mb(self):
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE_BASE64}}
        message = self.demo.messages.create(model="demo", max_tokens=500, messages=user([image, {"type": "text", "text": "what is this?"}]))
        self.assertIn("1 image** (4194304 bytes)", text_of(message))

    def test_structured_output(self):
        class Booking(BaseModel):
            name: str
            people: int
            kind: Literal["lunch", "dinner"]

        want = Booking(name="Ada Lovelace", people=4, kind="lunch")
        request = {"model": "demo", "max_tokens": 500, "messages": user("A table for Ada Lovelace, 4 people"), "output_format": Booking}
        self.assertEqual(self.demo.messages.parse(**request).parsed_output, want)
        with self.demo.messages.stream(**request) as stream:
            self.assertEqual(stream.get_final_message().parsed_output, want)

    def test_thinking(self):
        for behaviour in ("reasoning", "think-tags"):
            for message in self.both(behaviour, thinking=THINKING):
                with self.subTest(behaviour):
                    thinking, text = message.content
                    self.assertEqual((thinking.type, thinking.thinking), ("thinking", THOUGHT))
                    self.assertEqual(bool(thinking.signature), behaviour == "reasoning")
                    self.assertEqual(text.text, "You said: hi")
            self.assertEqual([block.type for block in self.ask(behaviour).content], ["text"])

    def test_reasoning_goes_back(self):
        for asked in ({"thinking": THINKING}, {}):
            with self.subTest(asked):
                model = unique("needs-reasoning")
                for first in self.both(model, tools=[tool("one")], **asked):
                    result = {"type": "tool_result", "tool_use_id": first.content[-1].id, "content": "done"}
                    messages = [*user("hi"), {"role": "assistant", "content": first.content}, *user([result])]
                    self.assertEqual(text_of(self.ask(model, tools=[tool("one")], messages=messages, **asked)), "You said: done")

    def test_usage(self):
        for message in self.both("cached"):
            usage = message.usage
            self.assertEqual((usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens), (10, 90, 5))

    def test_ends(self):
        for behaviour, reason in (("length", "max_tokens"), ("filter", "refusal")):
            for message in self.both(behaviour):
                self.assertEqual(message.stop_reason, reason)

    def test_count_tokens(self):
        plain = self.demo.messages.count_tokens(model="demo", messages=user("hello world")).input_tokens
        with_tools = self.demo.messages.count_tokens(model="demo", messages=user("hello world"), tools=[WEATHER]).input_tokens
        self.assertGreater(plain, 0)
        self.assertGreater(with_tools, plain + 50)

    def test_models(self):
        ids = [model.id for model in self.demo.models.list(limit=3)]
        self.assertIn("demo-tools", ids)
        self.assertEqual(len(set(ids)), len(ids))
        model = self.demo.models.retrieve("demo")
        self.assertEqual((model.id, model.type, model.created_at.year), ("demo", "model", 2026))
        self.assertEqual(self.once.models.retrieve("org/team/model:b").id, "org/team/model:b")
        with self.assertRaises(anthropic.NotFoundError):
            self.demo.models.retrieve("org/nothing")

    def test_error_classes(self):
        for behaviour, kind, status, name in FAILURES:
            for stream in (False, True):
                with self.subTest(behaviour, stream=stream):
                    with self.assertRaises(kind) as raised:
                        self.ask(behaviour, stream=stream)
                    error = raised.exception
                    self.assertEqual((error.status_code, error.body["type"], error.body["error"]["type"]), (status, "error", name))
                    self.assertEqual(error.body["request_id"], error.request_id)
                    self.assertNotIn(UPSTREAM_KEY, str(error))
                    if behaviour == "overflow":
                        self.assertTrue(error.body["error"]["message"].startswith("prompt is too long"), error)

    def test_streams_that_end_badly(self):
        for behaviour in ("cut-stream", "early-end", "error-in-stream"):
            with self.subTest(behaviour):
                text = ""
                with self.assertRaises(anthropic.APIError) as raised:
                    for event in self.ask(behaviour, stream=True):
                        text += getattr(getattr(event, "delta", None), "text", "")
                self.assertEqual(text, "You said: ")
                self.assertEqual(raised.exception.body["error"]["type"], "api_error")

    def test_retries(self):
        with claude(GATEWAY_URL, max_retries=2) as client:
            for behaviour, attempts in (("retry-429-ms", 2), ("retry-500", 3), ("retry-hang-up", 2)):
                with self.subTest(behaviour):
                    model = unique(behaviour)
                    self.assertEqual(text_of(client.messages.create(**self.request(model))), "You said: hi")
                    self.assertEqual(len(seen(model)), attempts)
            for behaviour, attempts in (("429", 3), ("503", 3), ("quota", 1), ("401", 1), ("400", 1)):
                with self.subTest(behaviour):
                    model = unique(behaviour)
                    with self.assertRaises(anthropic.APIStatusError):
                        client.messages.create(**self.request(model))
                    self.assertEqual(len(seen(model)), attempts)

    def test_good_answers(self):
        said = "hällo 你好 😀 <b>"
        for behaviour in GOOD_ANSWERS:
            for message in self.both(behaviour, messages=user(said)):
                with self.subTest(behaviour):
                    self.assertEqual((text_of(message), message.stop_reason), (f"You said: {said}", "end_turn"))

    def test_keys(self):
        with anthropic.Anthropic(base_url=GATEWAY_URL, auth_token=ALICE_KEY, max_retries=0) as client:
            self.assertEqual(text_of(client.messages.create(**self.request("ok"))), "You said: hi")
        for key in ("wrong", UPSTREAM_KEY):
            with claude(GATEWAY_URL, api_key=key) as client, self.assertRaises(anthropic.AuthenticationError):
                client.messages.create(**self.request("ok"))

    def test_what_goes_upstream(self):
        model = unique("ok")
        self.ask(model, extra_headers={"anthropic-beta": "a-1", "x-api-key": ALICE_KEY})
        headers = seen(model)[0]["headers"]
        self.assertEqual(headers["authorization"], f"Bearer {UPSTREAM_KEY}")
        self.assertNotIn(ALICE_KEY, str(headers))
        self.assertEqual([h for h in headers if h.startswith(("anthropic-", "x-stainless-", "x-api-key"))], [])

    def test_leaving(self):
        model = unique("slow-stream")
        stream = self.ask(model, stream=True)
        for _ in range(6):
            next(stream)
        stream.close()
        assert_aborted(model, time.time())
        model = unique("slow-first")
        with self.assertRaises(anthropic.APITimeoutError):
            self.ask(model, timeout=0.4)
        assert_aborted(model, time.time())

    def test_silence(self):
        with claude(PLAIN_URL) as client, self.assertRaises(anthropic.InternalServerError) as raised:
            client.messages.create(**self.request("slow-first"))
        self.assertEqual((raised.exception.status_code, raised.exception.body["error"]["type"]), (504, "timeout_error"))

    def test_session_continues_elsewhere(self):
        headers = {"X-Session-Id": f"python-{uuid.uuid4()}"}
        self.demo.messages.create(model="demo", max_tokens=500, messages=user("my name is Ada"), extra_headers=headers)
        with chat_gpt(DEMO_URL, default_headers=headers) as other:
            answer = other.chat.completions.create(model="demo", messages=user("what is my name?"))
            self.assertIn("**Ada**", answer.choices[0].message.content)
        with self.demo.messages.stream(model="demo", max_tokens=500, messages=user("who am I?"), extra_headers=headers) as stream:
            answer = stream.get_final_text()
        self.assertIn("**Ada**", answer)
        self.assertIn("5 messages", answer)


if __name__ == "__main__":
    unittest.main()
