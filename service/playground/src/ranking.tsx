/** Scored answers: their order, all scores, who wins against whom, and pairs to download. */

import { PlainText } from "./text";
import type { Scored } from "./types";
import { download, percent, Scroll, signed, toLines } from "./ui";

/** A prompt and its answers, with their scores in the same order; the rest is missing where there is one answer. */
export interface Ranked {
  prompt: string;
  answers: string[];
  by: string; // the weights that rank them
  candidates: Scored[];
  ranking?: number[];
  margin?: number;
  probability?: number;
  matrix?: number[][];
}

/** The answers in their order; `now` are the weights of the form, which may have changed since. */
export function Ranking(props: { names: string[]; ranked: Ranked; now: string; onExplain: (answer: number) => void }) {
  const { names, ranked } = props;
  const order = ranked.ranking ?? [0];
  return (
    <>
      <h2>Ranking</h2>
      {ranked.ranking && (
        <p role="status">
          By {ranked.by}.{" "}
          {ranked.by !== props.now && <strong>The weights have changed since: press Score to rank by them.</strong>}
        </p>
      )}
      <Scroll label="Ranking">
        <table>
          <thead>
            <tr>
              <th>Place</th>
              <th>Answer</th>
              {names.map((name) => (
                <th key={name} class="number">
                  {name}
                </th>
              ))}
              <th class="number">Tokens</th>
              <th>Where from</th>
            </tr>
          </thead>
          <tbody>
            {order.map((index, place) => (
              <tr key={index}>
                <td>{place + 1}</td>
                <td class="answer">
                  <PlainText>{ranked.answers[index]!}</PlainText>
                  <Remarks scored={ranked.candidates[index]!} />
                </td>
                {names.map((name) => (
                  <td key={name} class="number">
                    <ScoreCell scored={ranked.candidates[index]!} name={name} />
                  </td>
                ))}
                <td class="number">{ranked.candidates[index]!.tokens}</td>
                <td>
                  <button
                    type="button"
                    aria-label={`Explain the score of answer ${index + 1}`}
                    onClick={() => props.onExplain(index)}
                  >
                    Explain
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p class="note">Scores are in deviations of the reward; below each is the model's own number.</p>
      {ranked.matrix && <Matrix matrix={ranked.matrix} order={order} />}
      {ranked.ranking && (
        <button type="button" onClick={() => download("pairs.jsonl", toLines(listPairs(ranked)))}>
          Download as TRL pairs
        </button>
      )}
    </>
  );
}

function ScoreCell({ scored, name }: { scored: Scored; name: string }) {
  const score = scored.scores?.[name];
  if (!score) return <>–</>;
  return (
    <>
      {signed(score.calibrated ?? score.raw)}
      <div class="note">{signed(score.raw)}</div>
    </>
  );
}

/** What happened to a text before it was read, or why it has no scores. */
export function Remarks({ scored }: { scored: Scored }) {
  const remarks = [
    scored.error?.message,
    scored.truncated && "Too long: its beginning was cut.",
    scored.normalised?.length && `Not read as sent: ${scored.normalised.join(", ")}.`,
  ].filter(Boolean);
  return remarks.length ? <div class="note">{remarks.join(" ")}</div> : null;
}

/** The probability that the answer of a row is better than that of a column. */
function Matrix({ matrix, order }: { matrix: number[][]; order: number[] }) {
  return (
    <>
      <h3>Probability that the row's answer is better than the column's (Bradley-Terry)</h3>
      <Scroll label="Bradley-Terry probabilities">
        <table class="matrix">
          <thead>
            <tr>
              <td />
              {order.map((index) => (
                <th key={index} scope="col">
                  Answer {index + 1}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {order.map((row) => (
              <tr key={row}>
                <th scope="row">Answer {row + 1}</th>
                {order.map((column) => (
                  <td key={column} class="number" style={{ "--share": row === column ? 0 : matrix[row]![column] }}>
                    {row === column ? "–" : percent(matrix[row]![column]!)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  );
}

/** The best answer against each other one, in TRL's format. */
function listPairs({ prompt, answers, candidates, ranking }: Ranked) {
  const [best, ...others] = ranking!;
  return others.map((other) => ({
    prompt: [{ role: "user", content: prompt }],
    chosen: [{ role: "assistant", content: answers[best!] }],
    rejected: [{ role: "assistant", content: answers[other] }],
    chosen_score: candidates[best!]!.reward,
    rejected_score: candidates[other]!.reward,
  }));
}
