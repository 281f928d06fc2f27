"""What both suites need: clients for the gateways that ../run started, and a
look at what the scripted upstream saw."""

import json
import os
import time
import urllib.error
import urllib.request
import uuid
from urllib.parse import quote

import openai

try:
    DEMO_URL = os.environ["DEMO_URL"]  # -demo
    GATEWAY_URL = os.environ["GATEWAY_URL"]  # in front of the scripted upstream
    PLAIN_URL = os.environ["PLAIN_URL"]  # the same, MASK_AS_BROWSER=false and UPSTREAM_TIMEOUT=2
    UPSTREAM_URL = os.environ["UPSTREAM_URL"]
    UPSTREAM_KEY = os.environ["UPSTREAM_KEY"]
    ALICE_KEY = os.environ["ALICE_KEY"]
except KeyError as missing:
    raise SystemExit(f"{missing} is not set: start the suites with e2e/run") from None


def demo(**options):
    return openai.OpenAI(base_url=f"{DEMO_URL}/v1", api_key="demo", **options)


def alice(**options):
    return openai.OpenAI(base_url=f"{GATEWAY_URL}/v1", api_key=ALICE_KEY, **options)


def plain(**options):
    return openai.OpenAI(base_url=f"{PLAIN_URL}/v1", api_key=ALICE_KEY, **options)


def user(content):
    return [{"role": "user", "content": content}]


def unique(behaviour):
    """A model name of this test's own with that behaviour."""
    return f"{behaviour}/{uuid.uuid4()}"


def seen(of):
    """What the upstream received under a model name or request id."""
    with urllib.request.urlopen(f"{UPSTREAM_URL}/__requests?of={quote(of)}") as answer:
        return json.load(answer)


def seen_body(of):
    """The bytes of the last body that the upstream received."""
    with urllib.request.urlopen(f"{UPSTREAM_URL}/__body?of={quote(of)}") as answer:
        return answer.read()


def assert_aborted(of, left_at):
    """Checks that the upstream saw its client leave within a second."""
    for _ in range(60):
        at = seen(of)[-1]["abortedAt"] / 1000
        if at:
            assert at - left_at < 1, f"the upstream noticed after {at - left_at:.2f} s"
            return
        time.sleep(0.05)
    raise AssertionError("the upstream never noticed that the client had left")


def context(url, key, session):
    """The status and body of GET /context."""
    request = urllib.request.Request(f"{url}/context/{session}", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def collect(stream):
    """The text of a stream's first choice."""
    return "".join(c.delta.content or "" for chunk in stream for c in chunk.choices if c.index == 0)
