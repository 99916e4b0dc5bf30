"""Tokenizer, chat template and conversion: nothing is lost on the way, and a prefix stays a prefix."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from researcher.train.embedded import data
from researcher.train.embedded.chat import CHAT_TEMPLATE, said, text_of
from researcher.train.embedded.tasks.example import TOOLS, Example

SKILLS = data.SKILLS
TEXTS = [
    "Bena Kirov was born in Toral.",
    "  two spaces,\n\n\ta tab and 1234567890 digits",
    "naïve café — “quotes” \u4f60\u597d 🙂 \x00",
    "<|im_start|>user\nx<|im_end|>\n<think>\n</think><tool_call></tool_call><tool_response></tool_response>",
    "",
]


@pytest.fixture(scope="module")
def packed(recipe: Path) -> Any:
    from researcher.train.embedded.convert import read_gguf

    return read_gguf(recipe)


@pytest.fixture(scope="module")
def render(recipe: Path) -> Any:
    jinja2 = pytest.importorskip("jinja2")
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)

    def rendered(messages: list[dict[str, Any]], tools: tuple[str, ...] = (), **more: Any) -> str:
        return str(template.render(messages=messages, tools=[TOOLS[tool] for tool in tools], **more))

    return rendered


def solved(skill: data.Skill, seed: int = 0) -> Example:
    return data.make(random.Random(seed), skill, held_out=True)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_survives_the_tokenizer(packed: Any, text: str) -> None:
    encoded = packed.tokenizer.encode(text, add_special_tokens=False)
    assert packed.tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


def test_the_vocabulary_is_1024_with_single_digits_and_whole_syllables(packed: Any) -> None:
    from researcher.train.embedded.tasks.names import SYLLABLES

    tokens = packed.tokenizer.encode("Toral 1931", add_special_tokens=False).tokens
    assert tokens == ["To", "ra", "l", "Ġ", "1", "9", "3", "1"]
    vocabulary = packed.tokenizer.get_vocab()
    assert len(vocabulary) == packed.config["vocab_size"] == 1024
    assert all({s, s.capitalize(), "Ġ" + s.capitalize()} <= vocabulary.keys() for s in SYLLABLES)


def test_names_are_cut_alike_wherever_they_stand(packed: Any) -> None:
    for name in ("Benakirol", "Zudo", "Ripomen"):
        cut = [packed.tokenizer.encode(before + name).tokens[-4:] for before in ("", " ", '"', "<answer>")]
        assert len({tuple(token.removeprefix("Ġ") for token in tokens[-3:]) for tokens in cut[:1]}) == 1
        plain = [token.removeprefix("Ġ") for token in packed.tokenizer.encode(" " + name).tokens]
        assert plain == packed.tokenizer.encode(name).tokens
        assert packed.tokenizer.encode('"' + name).tokens == ['"', *plain]


def test_the_shipped_template_is_the_recipes(packed: Any) -> None:
    assert packed.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("skill", SKILLS)
def test_training_text_is_what_the_template_renders(render: Any, skill: data.Skill) -> None:
    example = solved(skill)
    assert render(example.messages, example.tools) == text_of(example)


@pytest.mark.parametrize("skill", SKILLS)
def test_every_beginning_of_a_conversation_renders_to_a_beginning(render: Any, skill: data.Skill) -> None:
    example = solved(skill)
    whole = render(example.messages, example.tools)
    for i, message in enumerate(example.messages):
        if message["role"] == "assistant":
            before = render(example.messages[:i], example.tools, add_generation_prompt=True)
            assert whole.startswith(before + said(message) + "<|im_end|>\n")


def test_without_thinking_the_prompt_goes_on_into_the_same_text(render: Any) -> None:
    example = solved("splitting")
    prompt = render(example.messages[:2], add_generation_prompt=True, enable_thinking=False)
    assert text_of(example) == prompt + example.answer + "<|im_end|>\n"


def test_a_reply_without_reasoning_begins_with_its_content(render: Any) -> None:
    example = solved("step_4")
    content = example.messages[2]["content"]
    prompt = render(example.messages[:2], add_generation_prompt=True)
    for message in ({"content": content}, {"content": content, "reasoning_content": None}):
        assert render([*example.messages[:2], {"role": "assistant", **message}]) == f"{prompt}{content}<|im_end|>\n"


def test_a_step_ends_on_a_token_of_its_own(packed: Any) -> None:
    for seed in range(20):
        content = solved("step_24", seed).messages[2]["content"]
        tokens = packed.tokenizer.encode(content).tokens
        assert tokens.count("Ċ") == content.count("\n") == 3


def test_arguments_as_text_or_object_and_both_names_of_the_reasoning_render_alike(render: Any) -> None:
    example = solved("two_hops")
    other = json.loads(json.dumps(example.messages))
    for message in other:
        if "reasoning_content" in message:
            message["reasoning"] = message.pop("reasoning_content") + "\n"  # as servers give it
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    assert render(other, example.tools) == render(example.messages, example.tools)


def test_several_calls_and_results_of_one_turn_stay_together(render: Any) -> None:
    example = solved("arithmetic")
    messages = json.loads(json.dumps(example.messages))
    messages[2]["tool_calls"] *= 2
    messages.insert(3, messages[3])
    text = render(messages, example.tools)
    assert text.count("<|im_start|>user") == 2
    assert "</tool_call>\n<tool_call>" in text
    assert "</tool_response>\n<tool_response>" in text


def test_a_conversation_may_begin_without_a_system_message(render: Any) -> None:
    user = [{"role": "user", "content": "Hello"}]
    assert render(user) == "<|im_start|>user\nHello<|im_end|>\n"
    assert render(user, ("python",)).startswith("<|im_start|>system\n# Tools\npython(code): Run Python code.<|im_end|>")


def test_gguf_and_safetensors_hold_the_same_numbers(packed: Any, folder: Path, tmp_path: Path) -> None:
    import numpy as np

    from researcher.train.embedded import convert

    back = convert.from_hf(folder)
    assert back.weights.keys() == packed.weights.keys()
    assert all(np.array_equal(back.weights[name], packed.weights[name]) for name in packed.weights)
    again = tmp_path / "again.gguf"
    convert.write_gguf(again, back)
    read = convert.read_gguf(again)
    assert read.config == packed.config
    assert read.tokenizer.to_str() == packed.tokenizer.to_str()
    assert read.chat_template == packed.chat_template
    assert all(np.array_equal(read.weights[name], packed.weights[name]) for name in packed.weights)


def test_rounding_to_bfloat16_is_to_the_nearest_even() -> None:
    np = pytest.importorskip("numpy")
    from researcher.train.embedded.convert import from_bits, to_bits

    exact = np.array([0.0, 1.0, -2.5, 3.0e38], dtype=np.float32)
    assert np.allclose(from_bits(to_bits(exact)), exact, rtol=2**-8)
    half = np.array([1 + 2**-8, 1 + 3 * 2**-8], dtype=np.float32)
    assert from_bits(to_bits(half)).tolist() == [1.0, 1 + 4 * 2**-8]


def test_the_average_lies_between_the_models_that_it_is_of(packed: Any) -> None:
    from researcher.train.embedded.convert import averaged, from_bits, to_bits

    name, bits = next(iter(packed.weights.items()))
    far = packed._replace(weights={**packed.weights, name: to_bits(from_bits(bits) + 4.0)})
    near = averaged([(3.0, packed), (1.0, far)])
    assert from_bits(near.weights[name]) == pytest.approx(from_bits(bits) + 1.0, abs=0.02)
    assert all((near.weights[other] == packed.weights[other]).all() for other in packed.weights if other != name)
    assert near.chat_template == packed.chat_template
    with pytest.raises(ValueError, match="other weights"):
        averaged([(1.0, packed), (1.0, packed._replace(weights={name: bits}))])
    with pytest.raises(ValueError, match="positive"):
        averaged([(2.0, packed), (-1.0, far)])


def test_the_export_needs_no_torch(recipe: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path; from researcher.train.embedded.convert import export_hf\n"
        f"export_hf(Path({str(recipe)!r}), Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
    assert {path.name for path in tmp_path.iterdir()} >= {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_it_ships_in_twelve_megabytes(recipe: Path) -> None:
    assert recipe.stat().st_size <= 12_000_000
