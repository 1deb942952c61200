"""Best of n: the server generates n answers, scores all of them, and returns the best by your preferences.

python best_of_n.py [URL]
"""

import sys

from tureen import Client

PREFERENCES = {"helpful": 0.7, "harmless": 0.3}
QUESTION = "How do I keep a cat off the table?"

with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
    options = {"n": 4, "preferences": PREFERENCES}
    best = client.chat(QUESTION, candidates={**options, "select": "best"}, max_tokens=48, seed=1)
    print("the best of 4:", best.text)

    everything = client.chat(QUESTION, candidates={**options, "select": "all"}, max_tokens=48, seed=1)
    texts = [choice.text for choice in everything.choices]
    reply = client.score([{"prompt": QUESTION, "candidates": texts}], preferences=PREFERENCES)
    rewards = [candidate.reward for candidate in reply.data[0].candidates]
    for reward, text in sorted(zip(rewards, texts, strict=True), reverse=True):
        print(f"{reward:+.3f}  {text!r}")
