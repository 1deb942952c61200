/** One turn of a chat: the question, its answers side by side, and their rewards. */

import { RewardBars } from "./bars";
import { describeWeights } from "./steering";
import { Markdown, PlainText } from "./text";
import { signed } from "./ui";
import type { Answer } from "./writing";

export interface Spoken {
  question: string;
  way: string;
  answers: Answer[];
  base?: Answer;
  /** The answer with which the conversation goes on. */
  kept: number;
}

export function Turn(props: { turn: Spoken; rewards: string[]; onKeep: (answer: number) => void }) {
  const { turn, rewards, onKeep } = props;
  const best = turn.way === "best of several";
  const shown = best ? turn.answers.slice(0, 1) : turn.answers;
  return (
    <article class="turn">
      <div class="question">
        <PlainText>{turn.question}</PlainText>
      </div>
      <div class="answers">
        {shown.map((answer, index) => (
          <div key={index} class="card">
            <h2>{describeWeights(answer.setting)}</h2>
            <Markdown>{answer.text}</Markdown>
            {answer.scores && <RewardBars names={rewards} scores={answer.scores} base={turn.base?.scores} />}
            {turn.answers.length > 1 && !best && (
              <label>
                <input type="radio" checked={turn.kept === index} onChange={() => onKeep(index)} /> Go on with this one
              </label>
            )}
          </div>
        ))}
      </div>
      {best && turn.answers.length > 1 && (
        <details>
          <summary>{turn.answers.length - 1} that were not chosen</summary>
          {turn.answers.slice(1).map((answer, index) => (
            <div key={index} class="extreme">
              <strong>{Number.isFinite(answer.reward) ? signed(answer.reward!) : "not scored"}</strong> (the chosen one
              has {signed(turn.answers[0]!.reward!)})<Markdown>{answer.text}</Markdown>
            </div>
          ))}
        </details>
      )}
      {turn.base && (
        <details>
          <summary>What the base answers</summary>
          <Markdown>{turn.base.text}</Markdown>
        </details>
      )}
    </article>
  );
}
