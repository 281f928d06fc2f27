"""What the suites of the other dialects need: clients of the makers' own SDKs."""

import base64
import json
import os

import anthropic
import openai
from google import genai
from google.genai import types

from helper import ALICE_KEY, DEMO_URL, seen_body

# What the scripted upstream (../upstream.mjs) thinks and writes.
THOUGHT = "I think, <therefore> I answer."
PATCH = '*** Begin Patch\n*** Update File: a "b".txt\n-old \\ line\n+new\ttab é 😀\n*** End Patch\n'

# A picture for the demo model, which counts its bytes.
PICTURE = os.urandom(4 << 20)
PICTURE_BASE64 = base64.b64encode(PICTURE).decode()

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NO_ARGUMENTS = {"type": "object", "properties": {}}

# Ways in which an upstream may answer that all mean the same.
GOOD_ANSWERS = (
    "ok", "json-for-stream", "sse-for-json", "text-plain", "usage-every", "usage-finish",
    "crlf", "comments", "no-space", "byte-by-byte", "no-done", "vendor-fields",
)


def key_of(url):
    return "demo" if url == DEMO_URL else ALICE_KEY


# The clients try nothing again unless a test says so.
def claude(url, **options):
    return anthropic.Anthropic(**{"base_url": url, "api_key": key_of(url), "max_retries": 0, **options})


def google(url, api_key=None, **http_options):
    return genai.Client(api_key=api_key or key_of(url), http_options=types.HttpOptions(base_url=url, **http_options))


def chat_gpt(url, **options):
    return openai.OpenAI(**{"base_url": f"{url}/v1", "api_key": key_of(url), "max_retries": 0, **options})


def sent(model):
    """The last body that the upstream received, read."""
    return json.loads(seen_body(model))
