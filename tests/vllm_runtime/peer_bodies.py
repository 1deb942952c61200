"""What both servers are sent: bodies of every option, those that both refuse, and those that they take differently."""

from typing import Any

TALK = [{"role": "user", "content": "why do leaves fall?"}, {"role": "assistant", "content": "the wind is lazy"}]
# as the template ends it
TEXT = "<|im_start|>user\nwhy do leaves fall?<|im_end|>\n<|im_start|>assistant\nthe wind<|im_end|>\n"
IDS = [1, 40, 41, 42, 43, 2]
LONG = "the quick brown fox jumps over the lazy dog " * 30
RAW = {"use_activation": False}

Sent = tuple[str, dict[str, Any]]

READ: list[Sent] = [
    ("/classify", {"input": TEXT}),
    ("/classify", {"input": TEXT, "model": "whole", "user": "me", "priority": 0, "request_id": "r1"}),
    ("/classify", {"input": TEXT, **RAW}),
    ("/classify", {"input": TEXT, "use_activation": True, "cache_salt": "salt", "padding": "do_not_pad"}),
    ("/classify", {"input": TEXT, "add_special_tokens": False, **RAW}),
    ("/classify", {"input": [TEXT, "why?", "  white\n\n space \n"], **RAW}),
    ("/classify", {"input": IDS, **RAW}),
    ("/classify", {"input": [IDS, IDS[:3]], **RAW}),
    ("/classify", {"messages": TALK, **RAW}),
    ("/classify", {"messages": TALK, "add_special_tokens": True, "chat_template_kwargs": {}, **RAW}),
    ("/classify", {"messages": TALK, "chat_template_kwargs": {"enable_thinking": False}, **RAW}),
    ("/classify", {"messages": [{**TALK[0], "content": [{"type": "text", "text": "why"}]}, TALK[1]], **RAW}),
    ("/classify", {"input": LONG, "truncate_prompt_tokens": -1, **RAW}),
    ("/classify", {"input": LONG, "truncate_prompt_tokens": 20, **RAW}),
    ("/classify", {"input": LONG, "truncate_prompt_tokens": 20, "truncation_side": "left", **RAW}),
    ("/classify", {"input": LONG, "truncate_prompt_tokens": 20, "truncation_side": "right", **RAW}),
    ("/classify", {"input": TEXT, "truncate_prompt_tokens": 256, "unknown": 1, **RAW}),
    ("/classify", {"input": [IDS * 9, IDS], "truncate_prompt_tokens": 7, "truncation_side": "left", **RAW}),
    ("/classify", {"messages": TALK, "truncate_prompt_tokens": 9, "truncation_side": "left", **RAW}),
    ("/pooling", {"input": TEXT}),
    ("/pooling", {"input": [TEXT, "why?"], "task": "classify", **RAW}),
    ("/pooling", {"messages": TALK, "encoding_format": "float", **RAW}),
    ("/tokenize", {"prompt": TEXT}),
    ("/tokenize", {"prompt": "  white \n", "add_special_tokens": False, "return_token_strs": True}),
    ("/tokenize", {"prompt": LONG, "model": "whole"}),
    ("/tokenize", {"messages": TALK, "add_generation_prompt": False}),
    ("/tokenize", {"messages": TALK[:1]}),
    ("/detokenize", {"tokens": IDS}),
    ("/detokenize", {"tokens": []}),
]

ENCODED: list[Sent] = [
    ("/pooling", {"input": [TEXT, "why?"], "encoding_format": form, "embed_dtype": dtype, "endianness": order, **RAW})
    for form in ("base64", "bytes", "bytes_only")
    for dtype in ("float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2")
    for order in ("native", "big", "little")
]

REFUSED: list[Sent] = [
    ("/classify", {}),
    ("/classify", {"input": None}),
    ("/classify", {"input": []}),
    ("/classify", {"input": ""}),
    ("/classify", {"input": [[]]}),
    ("/classify", {"input": ["a", 1]}),
    ("/classify", {"input": [TEXT, LONG]}),
    ("/classify", {"input": {"text": TEXT}}),
    ("/classify", {"input": [10**6]}),
    ("/classify", {"input": [-1]}),
    ("/classify", {"messages": []}),
    ("/classify", {"input": TEXT, "truncate_prompt_tokens": -2}),
    ("/classify", {"input": TEXT, "truncate_prompt_tokens": 257}),
    ("/classify", {"input": TEXT, "truncate_prompt_tokens": 0}),
    ("/classify", {"input": TEXT, "truncation_side": "middle"}),
    ("/classify", {"input": TEXT, "padding": "longest"}),
    ("/classify", {"input": TEXT, "cache_salt": ""}),
    ("/classify", {"input": TEXT, "normalize": True}),
    ("/classify", {"input": TEXT, "task": "score"}),
    ("/classify", {"input": TEXT, "use_activation": "perhaps"}),
    ("/classify", {"messages": TALK, "chat_template": "{{ messages }}"}),
    ("/classify", {"messages": TALK, "add_generation_prompt": True, "continue_final_message": True}),
    ("/pooling", {"input": TEXT, "task": "encode"}),
    ("/pooling", {"input": TEXT, "task": "embed"}),
    ("/pooling", {"input": TEXT, "task": "token_classify"}),
    ("/pooling", {"input": TEXT, "task": "plugin"}),
    ("/pooling", {"input": TEXT, "task": "nothing"}),
    ("/pooling", {"input": TEXT, "dimensions": 8}),
    ("/pooling", {"input": TEXT, "encoding_format": "hex"}),
    ("/pooling", {"input": TEXT, "encoding_format": "base64", "embed_dtype": "int8"}),
    ("/pooling", {"input": TEXT, "endianness": "middle"}),
    ("/pooling", {"data": TEXT}),
    ("/score", {"queries": ["a", "b"], "documents": ["c", "d", "e"]}),
    ("/score", {"queries": [], "documents": ["c"]}),
    ("/score", {"queries": "a", "documents": []}),
    ("/score", {"queries": "a"}),
    ("/score", {"queries": "a", "documents": "b", "max_tokens_per_doc": -1}),
    ("/score", {"queries": "a", "documents": "b", "max_tokens_per_query": 256}),
    ("/score", {"queries": "a", "documents": {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}}),
    ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}),
    ("/rerank", {"query": "a"}),
    ("/rerank", {"query": "a", "documents": []}),
    ("/tokenize", {}),
    ("/detokenize", {"tokens": [-1]}),
    ("/detokenize", {"tokens": "no"}),
]

PAIRS: list[Sent] = [
    *(
        (path, {first: query, second: "the wind", **more})
        for path in ("/score", "/v1/score")
        for query in ("why?", ["why?"])
        for first, second in (
            ("queries", "documents"),
            ("queries", "items"),
            ("data_1", "data_2"),
            ("text_1", "text_2"),
        )
        for more in ({}, RAW)
    ),
    ("/score", {"queries": "why?", "documents": ["the wind", "a fox", "the wind"]}),
    ("/score", {"queries": ["why?", "why?", "who?"], "documents": ["the wind", "a fox", "the dog"], **RAW}),
    ("/score", {"queries": "why?", "documents": ["the wind", LONG], "truncate_prompt_tokens": 30, **RAW}),
    *(
        (path, {"query": "why?", "documents": ["the wind", "a fox"]})
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    ),
    ("/rerank", {"query": "why?", "documents": "the wind", **RAW}),
    ("/rerank", {"query": "why?", "documents": ["the wind", "a fox", "the dog"], "top_n": 2, **RAW}),
    ("/rerank", {"query": "why?", "documents": ["the wind", "a fox"], "top_n": 9}),
]

# vLLM takes these. Here they are refused: each asks for a number that no reward was trained to give, or says two things
REFUSED_HERE: list[Sent] = [
    ("/classify", {"messages": TALK[:1]}),
    ("/classify", {"messages": TALK, "add_generation_prompt": True}),
    ("/classify", {"messages": TALK, "continue_final_message": True}),
    ("/classify", {"messages": TALK, "input": TEXT}),
    ("/classify", {"input": TEXT, "task": "token_classify"}),
    ("/score", {"queries": "why?", "documents": "the wind", "instruction": "be strict"}),
    ("/detokenize", {"tokens": [10**6]}),
]
