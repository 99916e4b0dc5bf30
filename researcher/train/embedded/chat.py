"""The chat format: the Jinja template that ships with the model, and the same rendering with a loss mask.

It is Qwen3's with three differences. The reasoning of earlier turns is kept, so that every rendering of a
conversation begins with the rendering of its beginning; and a tool is one line, `search(query): Search ...`,
because a JSON schema would cost this model a tenth of its context. An assistant message that says nothing of
reasoning and calls no tool is its content alone, so that a step-by-step solution can be continued where it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from researcher.train.embedded.tasks.example import TOOLS, Example, Message

CHAT_TEMPLATE = """\
{%- set first = messages[0].content if messages[0].role == 'system' else '' -%}
{%- if first or tools -%}
{{- '<|im_start|>system\\n' + first -}}
{%- if tools -%}
{%- if first -%}{{- '\\n\\n' -}}{%- endif -%}
{{- '# Tools' -}}
{%- for tool in tools -%}
{{- '\\n' + tool.function.name + '(' -}}
{%- for key in tool.function.parameters.properties -%}
{{- key -}}{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
{%- endfor -%}
{{- '): ' + tool.function.description -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' -}}
{%- elif message.role == 'system' -%}
{%- if not loop.first -%}{{- '<|im_start|>system\\n' + message.content + '<|im_end|>\\n' -}}{%- endif -%}
{%- elif message.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
{%- elif message.role == 'assistant' -%}
{%- set reasoning = (message.reasoning_content or message.reasoning or '') | trim -%}
{%- set content = (message.content or '') | trim -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if message.reasoning_content is string or message.reasoning is string or message.tool_calls -%}
{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- content -}}
{%- for tool_call in message.tool_calls or [] -%}
{%- set function = tool_call.function or tool_call -%}
{%- if content or not loop.first -%}{{- '\\n' -}}{%- endif -%}
{{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' -}}
{%- if function.arguments is string -%}{{- function.arguments -}}
{%- else -%}{{- function.arguments | tojson -}}{%- endif -%}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip


def segments(messages: Sequence[Message], tools: Sequence[str] = ()) -> Iterator[tuple[str, bool]]:
    """The rendered conversation in pieces, each with whether the model is to write it."""
    for i, message in enumerate(messages):
        match message["role"]:
            case "system":
                listed = "".join(f"\n{_signature(tool)}" for tool in tools)
                tail = f"\n\n# Tools{listed}" if listed else ""
                yield f"<|im_start|>system\n{message['content']}{tail}<|im_end|>\n", False
            case "user":
                yield f"<|im_start|>user\n{message['content']}<|im_end|>\n", False
            case "tool":
                yield ("" if i and messages[i - 1]["role"] == "tool" else "<|im_start|>user"), False
                yield f"\n<tool_response>\n{message['content']}\n</tool_response>", False
                yield ("" if messages[i + 1]["role"] == "tool" else "<|im_end|>\n"), False
            case _:
                yield "<|im_start|>assistant\n", False
                yield f"{said(message)}<|im_end|>", True
                yield "\n", False


def said(message: Message) -> str:
    """What the model writes for one assistant message, up to the end of its turn."""
    content = message["content"]
    calls = [
        f'<tool_call>\n{{"name": "{c["function"]["name"]}", "arguments": {c["function"]["arguments"]}}}\n</tool_call>'
        for c in message.get("tool_calls", ())
    ]
    body = "\n".join([*([content] if content else []), *calls])
    if "reasoning_content" not in message and not calls:
        return body
    return f"<think>\n{message.get('reasoning_content', '')}\n</think>\n\n{body}"


def text_of(example: Example) -> str:
    """The whole rendered conversation."""
    return "".join(text for text, _ in segments(example.messages, example.tools))


def _signature(tool: str) -> str:
    function = TOOLS[tool]["function"]
    return f"{tool}({', '.join(function['parameters']['properties'])}): {function['description']}"


def decoded_arguments(arguments: str) -> dict[str, str]:
    """The arguments of a tool call as an object."""
    decoded = json.loads(arguments)
    assert isinstance(decoded, dict)
    return decoded
