/** Where in an answer a reward comes from: its text, coloured by what each piece adds. */

import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import { showHidden } from "./text";
import type { Scores } from "./types";
import { Choice, Scroll, signed, Status, useTask } from "./ui";

interface Explained {
  method: "prefixes" | "omissions";
  scores: Scores;
  segments: { start: number; text: string; scores: Scores; changes: Record<string, number> }[];
  truncated: boolean;
}

const METHODS = { "running score": "prefixes", "leave pieces out": "omissions" } as const;
type Method = keyof typeof METHODS;
const UNITS = { "running score": "tokens", "leave pieces out": "sentences" } as const;

export function Explanation({ names, prompt, answer }: { names: string[]; prompt: string; answer: string }) {
  const [method, setMethod] = useState<Method>("running score");
  const [name, setName] = useState(names[0]!);
  const [explained, setExplained] = useState<Explained | null>(null);
  const task = useTask();
  useEffect(() => {
    const body = { prompt, answer, rewards: names, method: METHODS[method], by: UNITS[method], truncate: true };
    void task.run(async (signal) => setExplained(await call<Explained>("/v1/score/explain", body, signal)));
  }, [prompt, answer, method]);

  return (
    <section aria-label="Where the reward comes from">
      <h2>Where the reward comes from</h2>
      <div class="row">
        <label>
          Reward{" "}
          <select value={name} onChange={(event) => setName(event.currentTarget.value)}>
            {names.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
        <Choice label="Method" options={Object.keys(METHODS) as Method[]} value={method} onChange={setMethod} />
      </div>
      <Status busy={task.busy} failure={task.failure} />
      {explained && <Segments explained={explained} name={name} />}
    </section>
  );
}

function Segments({ explained, name }: { explained: Explained; name: string }) {
  const largest = Math.max(...explained.segments.map((each) => Math.abs(each.changes[name]!)), 1e-9);
  const running = explained.method === "prefixes";
  return (
    <>
      <p class="text explained" dir="auto">
        {explained.segments.map((each) => (
          <span
            key={each.start}
            class={each.changes[name]! < 0 ? "lowers" : "raises"}
            style={{ "--share": Math.abs(each.changes[name]!) / largest }}
            title={signed(each.changes[name]!)}
          >
            {showHidden(each.text)}
          </span>
        ))}
      </p>
      <p class="note">
        Green raises the reward, red lowers it; the strongest colour is {largest.toFixed(2)} deviations.{" "}
        {running
          ? "Each piece is compared with the answer as it was before it."
          : "Each piece is compared with the answer without it."}
        {explained.truncated && " The text is too long, and its beginning was not read."}
      </p>
      <details>
        <summary>As a table</summary>
        <Scroll label="Pieces of the answer">
          <table>
            <thead>
              <tr>
                <th>Piece</th>
                <th class="number">Adds</th>
                <th class="number">{running ? "Score up to here" : "Score without it"}</th>
              </tr>
            </thead>
            <tbody>
              {explained.segments.map((each) => (
                <tr key={each.start}>
                  <td class="text">{showHidden(each.text)}</td>
                  <td class="number">{signed(each.changes[name]!)}</td>
                  <td class="number">{signed(each.scores[name]!.calibrated ?? each.scores[name]!.raw)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      </details>
    </>
  );
}
