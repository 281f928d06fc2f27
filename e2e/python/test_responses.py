"""The official OpenAI SDK on the Responses API: against the gateway in demo mode,
and in front of an upstream that misbehaves."""

import asyncio
import time
import unittest
import uuid
from typing import Literal

import openai
from pydantic import BaseModel

from dialects import CITY, GOOD_ANSWERS, NO_ARGUMENTS, PATCH, PICTURE_BASE64, THOUGHT, chat_gpt, claude, sent
from helper import DEMO_URL, GATEWAY_URL, PLAIN_URL, UPSTREAM_KEY, assert_aborted, seen, unique, user

WEATHER = {"type": "function", "name": "weather", "description": "the weather in a city", "parameters": CITY, "strict": None}

# Behaviour, class, status, code.
FAILURES = [
    ("400", openai.BadRequestError, 400, "unsupported_value"),
    ("404", openai.NotFoundError, 404, "model_not_found"),
    ("409", openai.ConflictError, 409, None),
    ("422", openai.BadRequestError, 400, None),
    ("429", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("rate-first", openai.RateLimitError, 429, None),
    ("500", openai.InternalServerError, 500, None),
    ("503", openai.InternalServerError, 503, "server_is_overloaded"),
    ("overflow", openai.BadRequestError, 400, "context_length_exceeded"),
    ("401", openai.InternalServerError, 502, "upstream_auth"),
    ("html-200", openai.InternalServerError, 502, None),
    ("cut-json", openai.InternalServerError, 502, None),
    ("hang-up", openai.InternalServerError, 502, None),
]


def tool(name):
    return {"type": "function", "name": name, "parameters": NO_ARGUMENTS, "strict": None}


def output_of(call, output):
    kind = "custom_tool_call_output" if call.type == "custom_tool_call" else "function_call_output"
    return {"type": kind, "call_id": call.call_id, "output": output}


def calls_of(response):
    return [item for item in response.output if item.type.endswith("_call")]


class ResponsesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.demo = chat_gpt(DEMO_URL)
        cls.once = chat_gpt(GATEWAY_URL)

    @classmethod
    def tearDownClass(cls):
        cls.demo.close()
        cls.once.close()

    def request(self, behaviour, **extra):
        return {"model": behaviour if "/" in behaviour else unique(behaviour), "input": "hi", **extra}

    def ask(self, behaviour, **extra):
        return self.once.responses.create(**self.request(behaviour, **extra))

    def ask_stream(self, behaviour, **extra):
        """The events of a stream, numbered without gaps."""
        events = list(self.ask(behaviour, stream=True, **extra))
        self.assertEqual([e.sequence_number for e in events], list(range(len(events))))
        self.assertEqual([e.type for e in events[:2]], ["response.created", "response.in_progress"])
        return events

    def both(self, behaviour, **extra):
        """The answer whole, and the answer put together from a stream."""
        model = behaviour if "/" in behaviour else unique(behaviour)
        return self.ask(model, **extra), self.ask_stream(model, **extra)[-1].response

    def test_text(self):
        raw = self.demo.responses.with_raw_response.create(model="demo", input="hi")
        response = raw.parse()
        self.assertTrue(response.id.startswith("resp_"))
        self.assertTrue(response.output_text.startswith("Hello!"))
        self.assertEqual((response.status, response.model, response.error), ("completed", "demo", None))
        self.assertEqual(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens)
        self.assertEqual(raw.headers["x-apiproxy-fidelity"], "converted")

    def test_stream(self):
        events = list(self.demo.responses.create(model="demo", input="count to 20", stream=True))
        text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        self.assertEqual(text, " ".join(str(i) for i in range(1, 21)))
        self.assertEqual((events[-1].type, events[-1].response.output_text), ("response.completed", text))

    def test_stream_helper(self):
        with self.demo.responses.stream(model="demo", input="count to 5") as stream:
            pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()
        self.assertEqual(("".join(pieces), final.output_text), ("1 2 3 4 5", "1 2 3 4 5"))

    def test_async(self):
        async def run():
            async with openai.AsyncOpenAI(base_url=f"{DEMO_URL}/v1", api_key="demo") as client:
                async with client.responses.stream(model="demo", input="count to 5") as stream:
                    return (await stream.get_final_response()).output_text

        self.assertEqual(asyncio.run(run()), "1 2 3 4 5")

    def test_tools(self):
        for chained in (True, False):
            with self.subTest(chained=chained):
                messages = user("The weather in Paris?")
                first = self.demo.responses.create(model="demo-tools", input=messages, tools=[WEATHER])
                call = calls_of(first)[0]
                self.assertEqual((call.name, call.arguments), ("weather", '{"city":"Paris"}'))
                output = output_of(call, "18 degrees")
                more = {"previous_response_id": first.id, "input": [output]} if chained else {"input": [*messages, *first.output, output]}
                second = self.demo.responses.create(model="demo-tools", tools=[WEATHER], **more)
                self.assertIn("> 18 degrees", second.output_text)

    def test_parallel_tools(self):
        tools = [tool("one"), tool("two")]
        for behaviour in ("calls", "calls-whole", "text-and-calls"):
            model = unique(behaviour)
            for response in self.both(model, tools=tools):
                with self.subTest(behaviour):
                    calls = calls_of(response)
                    self.assertEqual([c.name for c in calls], ["one", "two"])
                    self.assertEqual(len({c.call_id for c in calls}), 2)
                    outputs = [output_of(c, f"result of {c.name}") for c in calls]
                    self.ask(model, tools=tools, previous_response_id=response.id, input=outputs)
                    messages = sent(model)["messages"]
                    self.assertEqual([m["role"] for m in messages], ["user", "assistant", "tool", "tool"])
                    self.assertEqual([m["content"] for m in messages[2:]], ["result of one", "result of two"])

    def test_custom_tool(self):
        tools = [{"type": "custom", "name": "apply_patch", "description": "edits files"}]
        model = unique("calls")
        for response in self.both(model, tools=tools):
            call = calls_of(response)[0]
            self.assertEqual((call.type, call.name, call.input), ("custom_tool_call", "apply_patch", PATCH))
            answer = self.ask(model, tools=tools, previous_response_id=response.id, input=[output_of(call, "Done!")])
            self.assertEqual(answer.output_text, "You said: Done!")

    def test_image_of_4_mb(self):
        image = {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE_BASE64}", "detail": "auto"}
        response = self.demo.responses.create(model="demo", input=user([image, {"type": "input_text", "text": "what is this?"}]))
        self.assertIn("1 image** (4194304 bytes)", response.output_text)

    def test_structured_output(self):
        class Booking(BaseModel):
            name: str
            people: int
            kind: Literal["lunch", "dinner"]

        want = Booking(name="Ada Lovelace", people=4, kind="lunch")
        request = {"model": "demo", "input": "A table for Ada Lovelace, 4 people", "text_format": Booking}
        self.assertEqual(self.demo.responses.parse(**request).output_parsed, want)
        with self.demo.responses.stream(**request) as stream:
            self.assertEqual(stream.get_final_response().output_parsed, want)

    def test_reasoning(self):
        for behaviour in ("reasoning", "think-tags"):
            for response in self.both(behaviour):
                with self.subTest(behaviour):
                    reasoning, message = response.output
                    self.assertEqual([s.text for s in reasoning.summary], [THOUGHT])
                    self.assertIsNone(reasoning.encrypted_content)
                    self.assertEqual(message.content[0].text, "You said: hi")

    def test_reasoning_goes_back(self):
        sealed = {"store": False, "include": ["reasoning.encrypted_content"]}
        for settings in ({}, sealed):
            model = unique("needs-reasoning")
            for first in self.both(model, tools=[tool("one")], **settings):
                with self.subTest(settings):
                    output = output_of(calls_of(first)[0], "done")
                    more = {"input": [*user("hi"), *first.output, output]} if settings else {"previous_response_id": first.id, "input": [output]}
                    self.assertEqual(self.ask(model, tools=[tool("one")], **settings, **more).output_text, "You said: done")

    def test_usage_and_ends(self):
        for response in self.both("cached"):
            usage = response.usage
            self.assertEqual((usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens), (100, 90, 5))
        for behaviour, reason in (("length", "max_output_tokens"), ("filter", "content_filter")):
            for response in self.both(behaviour):
                self.assertEqual((response.status, response.incomplete_details.reason), ("incomplete", reason))

    def test_count_tokens(self):
        plain = self.demo.responses.input_tokens.count(model="demo", input="hello world").input_tokens
        with_tools = self.demo.responses.input_tokens.count(model="demo", input="hello world", tools=[WEATHER]).input_tokens
        self.assertGreater(plain, 0)
        self.assertGreater(with_tools, plain + 50)

    def test_chain(self):
        first = self.demo.responses.create(model="demo", input="my name is Ada")
        with self.demo.responses.stream(model="demo", input="count to 3", previous_response_id=first.id) as stream:
            second = stream.get_final_response()
        third = self.demo.responses.create(model="demo", input="what is my name?", previous_response_id=second.id)
        self.assertIn("**Ada**", third.output_text)
        self.assertIn("5 messages", third.output_text)

    def test_retrieve_list_replay_delete(self):
        response = self.ask("reasoning", input=[*user("one"), {"role": "assistant", "content": "two"}, *user("three")])
        self.assertEqual(self.once.responses.retrieve(response.id), response)
        items = list(self.once.responses.input_items.list(response.id, order="asc", limit=2))
        self.assertEqual([item.role for item in items], ["user", "assistant", "user"])
        replayed = list(self.once.responses.retrieve(response.id, stream=True))
        self.assertEqual(replayed[-1].response.output, response.output)
        self.once.responses.delete(response.id)
        for call in (self.once.responses.retrieve, self.once.responses.delete):
            with self.assertRaises(openai.NotFoundError):
                call(response.id)

    def test_what_is_not_there_to_be_continued(self):
        secret, gone = self.ask("ok", store=False), self.ask("ok")
        self.once.responses.delete(gone.id)
        for previous in (secret.id, gone.id, "resp_nothing"):
            with self.assertRaises(openai.BadRequestError) as raised:
                self.ask("ok", previous_response_id=previous)
            self.assertEqual(raised.exception.code, "previous_response_not_found")

    def test_error_classes(self):
        for behaviour, kind, status, code in FAILURES:
            for stream in (False, True):
                with self.subTest(behaviour, stream=stream):
                    with self.assertRaises(kind) as raised:
                        self.ask(behaviour, stream=stream)
                    self.assertEqual(raised.exception.status_code, status)
                    if code:
                        self.assertEqual(raised.exception.code, code)
                    self.assertTrue(raised.exception.body["message"])
                    self.assertNotIn(UPSTREAM_KEY, str(raised.exception))

    def test_streams_that_end_badly(self):
        for behaviour in ("cut-stream", "early-end", "error-in-stream"):
            with self.subTest(behaviour):
                events = self.ask_stream(behaviour)
                text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
                self.assertEqual((text, events[-1].type), ("You said: ", "response.failed"))
                self.assertTrue(events[-1].response.error.message)
                with self.assertRaises(RuntimeError), self.once.responses.stream(**self.request(behaviour)) as stream:
                    stream.get_final_response()

    def test_retries(self):
        with chat_gpt(GATEWAY_URL, max_retries=2) as client:
            for behaviour, attempts in (("retry-429-ms", 2), ("retry-500", 3), ("retry-hang-up", 2)):
                with self.subTest(behaviour):
                    model = unique(behaviour)
                    self.assertEqual(client.responses.create(model=model, input="hi").output_text, "You said: hi")
                    self.assertEqual(len(seen(model)), attempts)

    def test_good_answers(self):
        said = "hällo 你好 😀 <b>"
        for behaviour in GOOD_ANSWERS:
            for response in self.both(behaviour, input=said):
                with self.subTest(behaviour):
                    self.assertEqual((response.output_text, response.status), (f"You said: {said}", "completed"))

    def test_leaving(self):
        model = unique("slow-stream")
        stream = self.ask(model, stream=True)
        for _ in range(6):
            next(stream)
        stream.close()
        assert_aborted(model, time.time())
        model = unique("slow-first")
        with self.assertRaises(openai.APITimeoutError):
            self.ask(model, timeout=0.4)
        assert_aborted(model, time.time())

    def test_silence(self):
        with chat_gpt(PLAIN_URL) as client, self.assertRaises(openai.InternalServerError) as raised:
            client.responses.create(**self.request("slow-first"))
        self.assertEqual((raised.exception.status_code, raised.exception.code), (504, "upstream_timeout"))

    def test_session_continues_elsewhere(self):
        headers = {"X-Session-Id": f"python-{uuid.uuid4()}"}
        self.demo.responses.create(model="demo", input="my name is Ada", extra_headers=headers)
        with claude(DEMO_URL, default_headers=headers) as other:
            answer = other.messages.create(model="demo", max_tokens=500, messages=user("what is my name?"))
            self.assertIn("**Ada**", answer.content[0].text)
        with self.demo.responses.stream(model="demo", input="who am I?", extra_headers=headers) as stream:
            answer = stream.get_final_response().output_text
        self.assertIn("**Ada**", answer)
        self.assertIn("5 messages", answer)


if __name__ == "__main__":
    unittest.main()
