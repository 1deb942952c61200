"""A reward for OpenRLHF: --reward.remote_url clients/examples/reward_openrlhf.py

Its server is TUREEN_BASE_URL's, else http://127.0.0.1:8900. As a script it scores one text: python reward_openrlhf.py
"""

from functools import partial

from tureen.adapters import openrlhf

# Without --data.apply_chat_template the prompts have no template; with it, set templated=True.
reward_func = partial(openrlhf.reward_func, preferences={"helpful": 0.7, "harmless": 0.3}, templated=False)

if __name__ == "__main__":
    print(reward_func(["Why do leaves fall? Because days grow short.</s>"], ["Why do leaves fall? "], [""]))
