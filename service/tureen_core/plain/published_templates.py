"""Chat templates of published reward models whose code writes the text by itself."""

# a line break right behind a block is removed, so it is written as an expression
USER = "{% for message in messages %}{% if message['role'] == 'user' %}"
ANSWER = "{% elif message['role'] == 'assistant' %}"
OTHER = "{% else %}"
END = "{% endif %}{% endfor %}"
OPEN = "{% if add_generation_prompt %}"
APART = "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
TEXT = "{{ message['content'] }}"
DSP = "".join(  # Linear95/DSP, reward_datasets.py
    (USER, APART, "{{ '## Human:\n' }}", TEXT, ANSWER, "{{ '\n\n## Assistant:\n' }}", TEXT, OTHER, TEXT, "\n\n", END)
    + (OPEN, "{{ '\n\n## Assistant:\n' }}{% endif %}")
)
ULTRARM = "".join(  # the model card of openbmb/UltraRM-13b
    (USER, APART, "Human: ", TEXT, ANSWER, "{{ '\n\nAssistant: ' }}", TEXT, OTHER, TEXT, "\n\n", END)
    + (OPEN, "{{ '\n\nAssistant: ' }}{% endif %}")
)
EURUS = "".join(  # the model card of openbmb/Eurus-RM-7b, which writes the closing mark with a backslash
    (USER, "{% if not loop.first %} {% endif %}[INST] ", TEXT, " [\\INST]", ANSWER, " ", TEXT, OTHER, TEXT, " ", END)
)
STARLING = "".join(  # the model card of berkeley-nest/Starling-RM-7B-alpha
    (USER, "{{ bos_token }}[INST] ", TEXT, " {{ eos_token }} [/INST]", ANSWER, " ", TEXT, "{{ eos_token }}")
    + (OTHER, TEXT, " ", END)
)
DEEPSPEED_CHAT = "".join(  # raw_datasets.py; it ends a text with <|endoftext|>, whatever the tokenizer's EOS
    (USER, "{{ '\n\nHuman: ' }}", TEXT, ANSWER, "{{ '\n\nAssistant: ' }}", TEXT)
    + ("{% if loop.last %}<|endoftext|>{% endif %}", OTHER, TEXT, END, OPEN, "{{ '\n\nAssistant: ' }}{% endif %}")
)
