/** Choose the better of two answers, by keyboard, and see which weights explain the choices. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { View } from "../app";
import { FitResult } from "../fit-result";
import { fitWeights, scorePair, writePair, type Choice, type Fit, type Pair, type Side } from "../fitting";
import { readItems, textOf, type Item } from "../records";
import { PlainText } from "../text";
import { Field, Status, useTask } from "../ui";
import { listRewards } from "./score";

const PROMPTS = [
  "Describe the rain.",
  "Why do leaves fall in autumn?",
  "How do I cook rice?",
  "Tell me about the moon.",
];
const KEYS: Record<string, Side | "skip" | "undo"> = { ArrowLeft: 0, ArrowRight: 1, ArrowDown: "skip", u: "undo" };

export const Label: View = ({ models }) => {
  const rewards = listRewards(models).slice(0, 16);
  const family = models.find((each) => each.kind === "policy");
  const [prompts, setPrompts] = useState(PROMPTS.join("\n"));
  const [file, setFile] = useState<Item[]>([]);
  const [place, setPlace] = useState(0);
  const [pair, setPair] = useState<Pair | null>(null);
  const [choices, setChoices] = useState<Choice[]>([]);
  const [fit, setFit] = useState<Fit | null>(null);
  const task = useTask();
  const fitting = useTask();
  const board = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!choices.length) return setFit(null);
    void fitting.run(async (signal) => setFit(await fitWeights(choices, "mine", signal)));
  }, [choices]);
  useEffect(() => board.current?.focus(), [pair]);
  if (rewards.length < 2) return <p>Weights need two rewards or more, and this server has fewer.</p>;

  const next = (items: Item[], at: number) => {
    setPlace(at);
    const asked = prompts.split("\n").filter((prompt) => prompt.trim());
    void task.run(async (signal) => {
      const item = items[at];
      if (item) {
        const [one, other] = item.candidates.map(textOf) as [string, string];
        setPair(await scorePair(item.prompt, [one, other], rewards, signal));
      } else if (items.length) {
        setPair(null);
        throw new Error("the file has no more pairs");
      } else if (family && asked.length) {
        setPair(await writePair(family.id, family.objectives, asked[at % asked.length]!, rewards, signal));
      } else {
        throw new Error("write a prompt, or choose a file");
      }
    });
  };
  const read = (given: File | undefined) =>
    given &&
    void task.run(async () => {
      const items = readItems(await given.text()).filter((item) => item.candidates.length > 1);
      if (!items.length) throw new Error("no line of the file has two answers");
      setFile(items);
      next(items, 0);
    });
  const decide = (decision: Side | "skip" | "undo") => {
    if (decision === "undo") return setChoices(choices.slice(0, -1));
    if (!pair || task.busy) return;
    if (decision !== "skip") setChoices([...choices, { pair, chosen: decision }]);
    next(file, place + 1);
  };
  const press = (event: KeyboardEvent) => {
    const decision = KEYS[event.key];
    if (decision === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    decide(decision);
  };
  return (
    <div class="columns chat">
      <div>
        {pair ? (
          <div
            ref={board}
            class="board"
            tabIndex={0}
            role="group"
            aria-label="Two answers: left and right arrow choose, down skips, u takes back"
            onKeyDown={press}
          >
            <h2>Which answer is better?</h2>
            <PlainText>{textOf(pair.prompt)}</PlainText>
            <div class="answers" aria-live="polite">
              {pair.answers.map((answer, side) => (
                <div key={side} class="card">
                  <h3>Answer {"AB"[side]}</h3>
                  <PlainText>{answer}</PlainText>
                  <button type="button" class="primary" disabled={task.busy} onClick={() => decide(side as Side)}>
                    {side ? "B is better →" : "← A is better"}
                  </button>
                </div>
              ))}
            </div>
            <div class="row">
              <button type="button" disabled={task.busy} onClick={() => decide("skip")}>
                Skip ↓
              </button>
              <button type="button" disabled={!choices.length} onClick={() => decide("undo")}>
                Take back (u)
              </button>
            </div>
          </div>
        ) : (
          <p>
            Two answers are shown, and you choose the better one. After some choices you see which weights of the
            rewards explain them.
          </p>
        )}
        <Status busy={task.busy} failure={task.failure} />
      </div>
      <div>
        <div class="card">
          {family && (
            <>
              <Field label="Prompts that the family answers, one in each line">
                <textarea rows={4} value={prompts} onInput={(event) => setPrompts(event.currentTarget.value)} />
              </Field>
              <button
                type="button"
                class="primary"
                disabled={task.busy}
                onClick={() => {
                  setFile([]);
                  next([], 0);
                }}
              >
                Write pairs
              </button>
            </>
          )}
          <Field label="Or pairs of a JSON Lines file">
            <input type="file" accept=".jsonl,.json" onChange={(event) => read(event.currentTarget.files?.[0])} />
          </Field>
        </div>
        <div class="card">
          <FitResult fit={fit} choices={choices} />
          <Status failure={fitting.failure} />
        </div>
      </div>
    </div>
  );
};
