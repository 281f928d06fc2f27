"""The official Google SDK against the gateway: in demo mode, and in front of an
upstream that misbehaves."""

import asyncio
import time
import unittest
import uuid
from typing import Literal

from google.genai import errors, types
from pydantic import BaseModel

from dialects import CITY, GOOD_ANSWERS, NO_ARGUMENTS, PICTURE, THOUGHT, chat_gpt, google, sent
from helper import ALICE_KEY, DEMO_URL, GATEWAY_URL, PLAIN_URL, UPSTREAM_KEY, assert_aborted, seen, unique, user

# Behaviour, class, code, status.
FAILURES = [
    ("400", errors.ClientError, 400, "INVALID_ARGUMENT"),
    ("404", errors.ClientError, 404, "NOT_FOUND"),
    ("409", errors.ClientError, 409, "ABORTED"),
    ("422", errors.ClientError, 400, "INVALID_ARGUMENT"),
    ("429", errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
    ("rate-first", errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
    ("500", errors.ServerError, 500, "INTERNAL"),
    ("503", errors.ServerError, 503, "UNAVAILABLE"),
    ("overflow", errors.ClientError, 400, "INVALID_ARGUMENT"),
    ("401", errors.ServerError, 503, "UNAVAILABLE"),
    ("html-200", errors.ServerError, 503, "UNAVAILABLE"),
    ("cut-json", errors.ServerError, 503, "UNAVAILABLE"),
    ("hang-up", errors.ServerError, 503, "UNAVAILABLE"),
]


def declare(*names):
    return [types.Tool(function_declarations=[types.FunctionDeclaration(name=n, parameters_json_schema=NO_ARGUMENTS) for n in names])]


def result(call, output):
    response = types.FunctionResponse(id=call.id, name=call.name, response={"output": output})
    return types.Part(function_response=response)


def parts_of(chunks):
    return [part for chunk in chunks for part in chunk.candidates[0].content.parts]


class GeminiTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.demo = google(DEMO_URL)
        cls.once = google(GATEWAY_URL)

    @classmethod
    def tearDownClass(cls):
        cls.demo.close()
        cls.once.close()

    def ask(self, behaviour, contents="hi", **config):
        model = behaviour if "/" in behaviour else unique(behaviour)
        return self.once.models.generate_content(model=model, contents=contents, config=config)

    def ask_stream(self, behaviour, contents="hi", **config):
        model = behaviour if "/" in behaviour else unique(behaviour)
        chunks = list(self.once.models.generate_content_stream(model=model, contents=contents, config=config))
        self.assertTrue(all(chunk.candidates[0].content.parts for chunk in chunks))
        self.assertTrue(all(chunk.candidates[0].finish_reason is None for chunk in chunks[:-1]))
        return chunks

    def test_text(self):
        answer = self.demo.models.generate_content(model="demo", contents="hi")
        self.assertTrue(answer.text.startswith("Hello!"))
        self.assertEqual(answer.candidates[0].finish_reason, types.FinishReason.STOP)
        self.assertEqual(answer.model_version, "demo")
        usage = answer.usage_metadata
        self.assertEqual(usage.total_token_count, usage.prompt_token_count + usage.candidates_token_count)
        self.assertEqual(answer.sdk_http_response.headers["x-apiproxy-fidelity"], "converted")

    def test_api_versions(self):
        for version in ("v1", "v1beta", "v1alpha"):
            with self.subTest(version):
                client = google(GATEWAY_URL, api_version=version)
                self.assertEqual(client.models.generate_content(model=unique("ok"), contents="hi").text, "You said: hi")
                self.assertEqual(client.models.get(model="org/model-a").name, "models/org/model-a")
                client.close()

    def test_stream(self):
        chunks = list(self.demo.models.generate_content_stream(model="demo", contents="count to 20"))
        self.assertEqual("".join(part.text for part in parts_of(chunks)), " ".join(str(i) for i in range(1, 21)))
        self.assertEqual(chunks[-1].candidates[0].finish_reason, types.FinishReason.STOP)
        self.assertEqual(chunks[-1].usage_metadata.candidates_token_count, 20)
        self.assertGreaterEqual(len(chunks), 20)

    def test_async(self):
        async def run():
            client = google(DEMO_URL).aio
            stream = await client.models.generate_content_stream(model="demo", contents="count to 5")
            text = "".join([chunk.text async for chunk in stream])
            await client.aclose()
            return text

        self.assertEqual(asyncio.run(run()), "1 2 3 4 5")

    def test_chats(self):
        for stream in (False, True):
            with self.subTest(stream=stream):
                chat = self.demo.chats.create(model="demo", config={"system_instruction": "Be short."})

                def say(text):
                    if stream:
                        return "".join(part.text for part in parts_of(chat.send_message_stream(text)))
                    return chat.send_message(text).text

                say("my name is Ada")
                answer = say("what is my name?")
                self.assertIn("**Ada**", answer)
                self.assertIn("4 messages", answer)

    def test_settings(self):
        model = unique("ok")
        self.ask(
            model, system_instruction="Be short.", temperature=0.5, top_p=0.9, top_k=40, max_output_tokens=77, stop_sequences=["END"], seed=7,
            thinking_config={"thinking_budget": 8192},
        )
        self.assertEqual(sent(model), {
            "model": model, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 77, "stop": ["END"], "seed": 7, "reasoning_effort": "medium",
            "messages": [{"role": "system", "content": "Be short."}, *user("hi")],
        })

    def test_tools(self):
        declaration = types.FunctionDeclaration(name="weather", description="the weather", parameters_json_schema=CITY)
        config = {"tools": [types.Tool(function_declarations=[declaration])]}
        contents = [types.Content(role="user", parts=[types.Part(text="The weather in Paris?")])]
        first = self.demo.models.generate_content(model="demo-tools", contents=contents, config=config)
        call = first.function_calls[0]
        self.assertEqual((call.name, call.args), ("weather", {"city": "Paris"}))
        contents += [first.candidates[0].content, types.Content(role="user", parts=[result(call, "18 degrees")])]
        second = self.demo.models.generate_content(model="demo-tools", contents=contents, config=config)
        self.assertIn("> 18 degrees", second.text)

    def test_automatic_function_calling(self):
        calls = []

        def weather(city: str) -> str:
            """The weather in a city."""
            calls.append(city)
            return "18 degrees"

        chat = self.demo.chats.create(model="demo-tools", config={"tools": [weather]})
        self.assertIn("> 18 degrees", chat.send_message("The weather in Paris?").text)
        streamed = "".join(part.text or "" for part in parts_of(chat.send_message_stream("The weather in Rome?")))
        self.assertIn("> 18 degrees", streamed)
        self.assertEqual(calls, ["Paris", "Rome"])

    def test_parallel_tools(self):
        tools = declare("one", "two")
        for behaviour in ("calls", "calls-whole", "text-and-calls"):
            model = unique(behaviour)
            whole = self.ask(model, tools=tools).function_calls
            streamed = [part.function_call for part in parts_of(self.ask_stream(model, tools=tools)) if part.function_call]
            for calls in (whole, streamed):
                with self.subTest(behaviour):
                    self.assertEqual([(c.name, list(c.args)) for c in calls], [("one", ["b", "a"]), ("two", ["b", "a"])])
                    self.assertEqual(len({c.id for c in calls}), 2)
                    contents = [
                        types.Content(role="user", parts=[types.Part(text="hi")]),
                        types.Content(role="model", parts=[types.Part(function_call=c) for c in calls]),
                        types.Content(role="user", parts=[result(c, f"result of {c.name}") for c in calls]),
                    ]
                    self.ask(model, contents, tools=tools)
                    messages = sent(model)["messages"]
                    self.assertEqual([m["role"] for m in messages], ["user", "assistant", "tool", "tool"])
                    self.assertEqual([m["tool_call_id"] for m in messages[2:]], [c.id for c in calls])
                    self.assertEqual([m["content"] for m in messages[2:]], ["result of one", "result of two"])

    def test_image_of_4_mb(self):
        image = types.Part.from_bytes(data=PICTURE, mime_type="image/png")
        answer = self.demo.models.generate_content(model="demo", contents=[image, "what is this?"])
        self.assertIn("1 image** (4194304 bytes)", answer.text)

    def test_structured_output(self):
        class Booking(BaseModel):
            name: str
            people: int
            kind: Literal["lunch", "dinner"]

        want = Booking(name="Ada Lovelace", people=4, kind="lunch")
        question = "A table for Ada Lovelace, 4 people"
        config = {"response_mime_type": "application/json", "response_schema": Booking}
        self.assertEqual(self.demo.models.generate_content(model="demo", contents=question, config=config).parsed, want)
        config = {"response_mime_type": "application/json", "response_json_schema": Booking.model_json_schema()}
        answer = self.demo.models.generate_content(model="demo", contents=question, config=config)
        self.assertEqual(Booking.model_validate_json(answer.text), want)

    def test_thinking(self):
        for behaviour in ("reasoning", "think-tags"):
            with self.subTest(behaviour):
                asked = {"thinking_config": {"include_thoughts": True}}
                for chunks in ([self.ask(behaviour, **asked)], self.ask_stream(behaviour, **asked)):
                    parts = parts_of(chunks)
                    self.assertEqual("".join(p.text for p in parts if p.thought), THOUGHT)
                    self.assertEqual("".join(p.text for p in parts if not p.thought), "You said: hi")
                self.assertEqual([p.text for p in parts_of([self.ask(behaviour)])], ["You said: hi"])

    def test_reasoning_goes_back(self):
        for include in (True, False):
            for stream in (False, True):
                with self.subTest(include=include, stream=stream):
                    config = {"tools": declare("one"), "thinking_config": {"include_thoughts": include}}
                    chat = self.once.chats.create(model=unique("needs-reasoning"), config=config)
                    first = list(chat.send_message_stream("hi")) if stream else [chat.send_message("hi")]
                    call = next(part.function_call for part in parts_of(first) if part.function_call)
                    self.assertEqual(chat.send_message(result(call, "done")).text, "You said: done")

    def test_thought_signatures_go_back(self):
        # A gateway remembers that its upstream signs calls: this goes through the
        # other one, so that no other test sees it.
        client = google(PLAIN_URL)
        chat = client.chats.create(model=unique("signed"), config={"tools": declare("one")})
        part = chat.send_message("hi").candidates[0].content.parts[0]
        self.assertTrue(part.thought_signature)
        self.assertEqual(chat.send_message(result(part.function_call, "done")).text, "You said: done")
        client.close()

    def test_usage_and_ends(self):
        for answer in (self.ask("cached"), self.ask_stream("cached")[-1]):
            usage = answer.usage_metadata
            self.assertEqual((usage.prompt_token_count, usage.cached_content_token_count), (100, 90))
            self.assertEqual((usage.thoughts_token_count, usage.candidates_token_count), (2, 3))
        for behaviour, reason in (("length", types.FinishReason.MAX_TOKENS), ("filter", types.FinishReason.SAFETY)):
            for answer in (self.ask(behaviour), self.ask_stream(behaviour)[-1]):
                self.assertEqual(answer.candidates[0].finish_reason, reason)
        self.assertEqual(self.ask("filtered").prompt_feedback.block_reason, types.BlockedReason.SAFETY)

    def test_count_tokens(self):
        short = self.demo.models.count_tokens(model="demo", contents="hello world").total_tokens
        long = self.demo.models.count_tokens(model="demo", contents="hello world " * 1000).total_tokens
        self.assertGreater(short, 0)
        self.assertGreater(long, 500 * short / 10)

    def test_models(self):
        names = [model.name for model in self.demo.models.list(config={"page_size": 3})]
        self.assertIn("models/demo-tools", names)
        self.assertEqual(len(set(names)), len(names))
        model = self.once.models.get(model="org/model-a")
        self.assertEqual((model.name, model.input_token_limit), ("models/org/model-a", 131072))
        with self.assertRaises(errors.ClientError) as raised:
            self.demo.models.get(model="org/nothing")
        self.assertEqual((raised.exception.code, raised.exception.status), (404, "NOT_FOUND"))

    def test_error_classes(self):
        for behaviour, kind, code, status in FAILURES:
            for ask in (self.ask, self.ask_stream):
                with self.subTest(behaviour, ask=ask.__name__):
                    with self.assertRaises(kind) as raised:
                        ask(behaviour)
                    self.assertEqual((raised.exception.code, raised.exception.status), (code, status))
                    self.assertTrue(raised.exception.message)
                    self.assertNotIn(UPSTREAM_KEY, str(raised.exception))

    def test_streams_that_end_badly(self):
        for behaviour in ("cut-stream", "early-end", "error-in-stream"):
            with self.subTest(behaviour):
                text = ""
                with self.assertRaises(errors.APIError):
                    for chunk in self.once.models.generate_content_stream(model=unique(behaviour), contents="hi"):
                        text += chunk.text
                        self.assertIsNone(chunk.candidates[0].finish_reason)
                self.assertEqual(text, "You said: ")

    def test_retries(self):
        options = types.HttpRetryOptions(attempts=4, initial_delay=0.01, max_delay=0.02)
        client = google(GATEWAY_URL, retry_options=options)
        for behaviour, attempts in (("retry-429-ms", 2), ("retry-500", 3), ("retry-hang-up", 2)):
            with self.subTest(behaviour):
                model = unique(behaviour)
                self.assertEqual(client.models.generate_content(model=model, contents="hi").text, "You said: hi")
                self.assertEqual(len(seen(model)), attempts)
        client.close()

    def test_good_answers(self):
        said = "hällo 你好 😀 <b>"
        for behaviour in GOOD_ANSWERS:
            with self.subTest(behaviour):
                self.assertEqual(self.ask(behaviour, said).text, f"You said: {said}")
                chunks = self.ask_stream(behaviour, said)
                self.assertEqual("".join(part.text for part in parts_of(chunks)), f"You said: {said}")
                self.assertEqual(chunks[-1].candidates[0].finish_reason, types.FinishReason.STOP)

    def test_keys(self):
        for key in ("wrong", UPSTREAM_KEY):
            client = google(GATEWAY_URL, api_key=key)
            with self.assertRaises(errors.ClientError) as raised:
                client.models.generate_content(model=unique("ok"), contents="hi")
            self.assertEqual((raised.exception.code, raised.exception.status), (401, "UNAUTHENTICATED"))
            client.close()

    def test_what_goes_upstream(self):
        model = unique("ok")
        self.ask(model)
        request = seen(model)[0]
        self.assertEqual((request["path"], request["headers"]["authorization"]), ("/v1/chat/completions", f"Bearer {UPSTREAM_KEY}"))
        self.assertNotIn(ALICE_KEY, str(request["headers"]))
        self.assertEqual([h for h in request["headers"] if h.startswith("x-goog-")], [])

    def test_leaving(self):
        model = unique("slow-stream")
        stream = self.once.models.generate_content_stream(model=model, contents="hi")
        next(stream), next(stream)
        stream.close()
        assert_aborted(model, time.time())

    def test_silence(self):
        client = google(PLAIN_URL)
        with self.assertRaises(errors.ServerError) as raised:
            client.models.generate_content(model=unique("slow-first"), contents="hi")
        self.assertEqual((raised.exception.code, raised.exception.status), (504, "DEADLINE_EXCEEDED"))
        client.close()

    def test_session_continues_elsewhere(self):
        headers = {"X-Session-Id": f"python-{uuid.uuid4()}"}
        client = google(DEMO_URL, headers=headers)
        client.models.generate_content(model="demo", contents="my name is Ada")
        with chat_gpt(DEMO_URL, default_headers=headers) as other:
            self.assertIn("**Ada**", other.responses.create(model="demo", input="what is my name?").output_text)
        answer = "".join(part.text for part in parts_of(client.models.generate_content_stream(model="demo", contents="who am I?")))
        self.assertIn("**Ada**", answer)
        self.assertIn("5 messages", answer)
        client.close()


if __name__ == "__main__":
    unittest.main()
