/** Scores of a file that is dropped in: progress, length against score, the extremes, and TRL's data. */

import { dot, linearRegressionY } from "@observablehq/plot";
import { useMemo, useState } from "preact/hooks";
import { call } from "./api";
import { Chart } from "./chart";
import { messagesOf, readItems, textOf, type Item } from "./records";
import { PlainText } from "./text";
import type { Scored, Weights } from "./types";
import { download, signed, Status, toLines, useTask } from "./ui";

type ScoredItem = Item & { scored: Scored[] };
interface Point {
  item: ScoredItem;
  index: number;
  tokens: number;
  reward: number;
}

const CHUNK = 32; // items of a request
const SHOW_EVERY = 2000; // milliseconds between two drawings of the results so far
const MOST_DRAWN = 2000; // points of the chart
const SHOWN = 5; // of the best and of the worst

export function FileScores({ names, weights }: { names: string[]; weights: Weights }) {
  const [items, setItems] = useState<ScoredItem[]>([]);
  const [progress, setProgress] = useState<{ done: number; total: number } | null>(null);
  const task = useTask();

  const read = (file: File | undefined) => {
    if (!file) return;
    void task.run(async (signal) => {
      setItems([]);
      setProgress(null);
      const given = readItems(await file.text());
      const scored: ScoredItem[] = [];
      let shown = Date.now();
      for (let start = 0; start < given.length; start += CHUNK) {
        setProgress({ done: start, total: given.length });
        scored.push(...(await scoreItems(given.slice(start, start + CHUNK), names, weights, signal)));
        if (Date.now() - shown < SHOW_EVERY) continue;
        setItems([...scored]);
        shown = Date.now();
      }
      setItems(scored);
      setProgress({ done: given.length, total: given.length });
    });
  };
  return (
    <div class="card">
      <h2>Score a file</h2>
      <label
        class="drop"
        onDragOver={(event) => event.preventDefault()}
        onDrop={(event) => {
          event.preventDefault();
          read(event.dataTransfer?.files[0]);
        }}
      >
        <span>Drop a JSON Lines file here, or choose one.</span>
        <input type="file" accept=".jsonl,.json" onChange={(event) => read(event.currentTarget.files?.[0])} />
        <span class="note">
          A line has prompt with candidates, prompt with chosen and rejected, or messages. It is ranked by the weights
          here.
        </span>
      </label>
      {progress && (
        <div class="row">
          <progress aria-label="Scored lines" value={progress.done} max={progress.total} />
          <span>
            {progress.done} of {progress.total} lines
          </span>
          {task.busy && (
            <button type="button" onClick={task.stop}>
              Stop
            </button>
          )}
        </div>
      )}
      <Status failure={task.failure} />
      {items.length > 0 && <Summary items={items} />}
    </div>
  );
}

async function scoreItems(items: Item[], names: string[], weights: Weights, signal: AbortSignal) {
  const asked = items.map(({ prompt, candidates }) => ({ prompt, candidates }));
  const body = { items: asked, rewards: names, preferences: weights, truncate: true };
  const reply = await call<{ data: { candidates: Scored[]; error: Scored["error"] }[] }>(
    "/v1/score",
    { ...body, on_error: "item" },
    signal,
  );
  return items.map((item, index) => ({ ...item, scored: reply.data[index]!.candidates }));
}

function Summary({ items }: { items: ScoredItem[] }) {
  const points = useMemo(() => listPoints(items), [items]);
  const drawn = useMemo(() => thin(points, MOST_DRAWN), [points]);
  const options = useMemo(
    () => ({
      height: 260,
      x: { label: "tokens of prompt and answer" },
      y: { label: "reward", grid: true },
      marks: [
        dot(drawn, { x: "tokens", y: "reward", r: 2, fill: "var(--c0)", fillOpacity: 0.5 }),
        linearRegressionY(drawn, { x: "tokens", y: "reward", stroke: "var(--c1)" }),
      ],
    }),
    [drawn],
  );
  const failed = items.flatMap((item) => item.scored).filter((each) => each.error).length;
  const pairs = items.filter((item) => item.scored.filter((each) => each.reward !== null).length > 1);
  const sorted = points.toSorted((one, other) => other.reward - one.reward);
  const related = correlation(points);
  const labelled = pairs.filter((item) => item.chosenFirst);
  const agreed = labelled.filter(({ scored: [chosen, rejected] }) => chosen!.reward! > rejected!.reward!);
  return (
    <>
      <p>
        {points.length} answers scored{failed > 0 && `, ${failed} failed`}. Length and reward correlate by{" "}
        {Number.isFinite(related) ? signed(related) : "–"}.
      </p>
      {points.length > 2 && <Chart label={`Reward against length; correlation ${signed(related)}`} options={options} />}
      {labelled.length > 0 && (
        <p>
          The reward prefers the chosen answer in {agreed.length} of {labelled.length} pairs. Downloaded pairs are in
          the reward's order, not in the file's.
        </p>
      )}
      <div class="row">
        <button
          type="button"
          disabled={!pairs.length}
          onClick={() => download("pairs.jsonl", toLines(pairs.map(toTrl)))}
        >
          Download {pairs.length} TRL pairs
        </button>
        <button type="button" onClick={() => download("scores.jsonl", toLines(items))}>
          Download the scores
        </button>
      </div>
      <Extremes title="Highest" points={sorted.slice(0, SHOWN)} />
      <Extremes title="Lowest" points={sorted.slice(-SHOWN).toReversed()} />
    </>
  );
}

function Extremes({ title, points }: { title: string; points: Point[] }) {
  return (
    <details>
      <summary>{title}</summary>
      {points.map((point) => (
        <div key={`${textOf(point.item.prompt)} ${point.index}`} class="extreme">
          <strong>{signed(point.reward)}</strong>
          <PlainText>{textOf(point.item.candidates[point.index]!).slice(0, 600)}</PlainText>
        </div>
      ))}
    </details>
  );
}

function listPoints(items: ScoredItem[]): Point[] {
  return items.flatMap((item) =>
    item.scored.flatMap(({ tokens, reward }, index) => (reward === null ? [] : [{ item, index, tokens, reward }])),
  );
}

/** At most so many of the values, evenly spread. */
function thin<T>(values: T[], most: number): T[] {
  const step = Math.ceil(values.length / most);
  return step > 1 ? values.filter((_, index) => index % step === 0) : values;
}

/** Pearson's correlation of tokens and reward; NaN where one of them does not vary. */
function correlation(points: Point[]): number {
  const count = points.length;
  const meanTokens = points.reduce((sum, each) => sum + each.tokens, 0) / count;
  const meanReward = points.reduce((sum, each) => sum + each.reward, 0) / count;
  let both = 0;
  let tokens = 0;
  let reward = 0;
  for (const each of points) {
    both += (each.tokens - meanTokens) * (each.reward - meanReward);
    tokens += (each.tokens - meanTokens) ** 2;
    reward += (each.reward - meanReward) ** 2;
  }
  return both / Math.sqrt(tokens * reward);
}

/** The best answer against the worst, in TRL's format. */
function toTrl({ prompt, candidates, scored }: ScoredItem) {
  const order = scored
    .map((each, index) => ({ reward: each.reward, index }))
    .filter((each): each is { reward: number; index: number } => each.reward !== null)
    .sort((one, other) => other.reward - one.reward);
  const [best, worst] = [order[0]!, order.at(-1)!];
  return {
    prompt: messagesOf(prompt, "user"),
    chosen: messagesOf(candidates[best.index]!, "assistant"),
    rejected: messagesOf(candidates[worst.index]!, "assistant"),
    chosen_score: best.reward,
    rejected_score: worst.reward,
  };
}
