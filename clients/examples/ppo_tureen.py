"""PPO with tureen-train: a small policy learns from two weighted rewards that a Tureen server computes.

python ppo_tureen.py [URL] [MODEL]        needs: pip install 'tureen[train]'
"""

import json
import sys
from pathlib import Path

from tureen_train.config import resolve_recipe
from tureen_train.kinds import train_run

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8900"
model = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"
folder = Path("runs/ppo")
folder.mkdir(parents=True, exist_ok=True)

questions = ["Why do leaves fall in autumn?", "How do I boil an egg?", "Why is the sky blue?", "What is a soup?"]
prompts = folder / "prompts.jsonl"
prompts.write_text("\n".join(json.dumps({"prompt": [{"role": "user", "content": text}]}) for text in questions))
recipe = {
    "kind": "expert",
    "name": "ppo",
    "output": str(folder),
    "data": {"train": [{"path": str(prompts)}], "holdout": 0},
    "rewards": [
        {"source": "server", "url": url, "reward": "helpful", "weight": 0.7},
        {"source": "server", "url": url, "reward": "harmless", "weight": 0.3},
    ],
    "model": {"base": model, "precision": "fp32", "lora": {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]}},
    "policy": {"method": "ppo", "steps": 3, "prompts": 4, "epochs": 2},
    "sampling": {"count": 2, "max_tokens": 16},
    "optimisation": {"learning_rate": 1e-4, "batch": 4},
}
artifact = train_run(resolve_recipe(recipe))
for row in map(json.loads, (folder / "history.jsonl").read_text().splitlines()):
    if "reward" in row:
        means = [round(row[f"reward_{name}"], 3) for name in ("helpful", "harmless")]
        print(f"step {row['step']}: reward {row['reward']:.3f} of {means}, failed: {row['without_reward']:.0f}")
print("serve it with: tureen-serve --expert", artifact.folder)
