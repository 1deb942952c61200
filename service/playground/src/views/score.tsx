/** Ask a reward model: rank answers, see where a reward comes from, or score a file of answers. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { View } from "../app";
import { call } from "../api";
import { Explanation } from "../explanation";
import { FileScores } from "../file-scores";
import { Ranking, type Ranked } from "../ranking";
import { describeWeights } from "../steering";
import { Field, positive, Sliders, TaskButtons, useTask } from "../ui";
import type { ModelCard, Weights } from "../types";

const PROMPT = "Why do leaves fall in autumn?";
const ANSWERS = [
  "Abscission is regulated by ethylene and auxin.",
  "Gold letters let go of the bough, one by one.",
  "No idea.",
];
const MOST_ANSWERS = 16;

/** The rewards that score whole answers. */
export const listRewards = (models: ModelCard[]) =>
  models.filter((each) => each.kind === "reward" && each.input === "conversation").map((each) => each.id);

export const Score: View = ({ models }) => {
  const names = listRewards(models);
  const [weights, setWeights] = useState<Weights>(() => Object.fromEntries(names.slice(0, 1).map((name) => [name, 1])));
  const alike = Object.fromEntries(names.map((name) => [name, 1]));
  const asked = positive(weights) ?? alike;
  if (!names.length) return <p>This server has no reward that scores whole answers.</p>;
  return (
    <Answers names={names} weights={asked}>
      <fieldset class="card">
        <legend>Rank by</legend>
        <Sliders names={names} value={weights} onChange={setWeights} />
      </fieldset>
      <FileScores names={names} weights={asked} />
    </Answers>
  );
};

/** The form and, beside it, `children`; what comes of it stands below. */
function Answers(props: { names: string[]; weights: Weights; children: ComponentChildren }) {
  const { names, weights } = props;
  const [prompt, setPrompt] = useState(PROMPT);
  const [answers, setAnswers] = useState(ANSWERS);
  const [ranked, setRanked] = useState<Ranked | null>(null);
  const [explained, setExplained] = useState<number | null>(null);
  const task = useTask();

  const score = (event: SubmitEvent) => {
    event.preventDefault();
    setExplained(null);
    void task.run(async (signal) => {
      const candidates = answers.filter((answer) => answer.trim());
      const body = { items: [{ prompt, candidates }], rewards: names, preferences: weights, truncate: true };
      const route = candidates.length > 1 ? "/v1/preferences" : "/v1/score";
      const matrix = candidates.length > 1 ? { matrix: true } : {};
      const reply = await call<{ data: Omit<Ranked, "prompt" | "answers" | "by">[] }>(
        route,
        { ...body, ...matrix },
        signal,
      );
      setRanked({ prompt, answers: candidates, by: describeWeights(weights), ...reply.data[0]! });
    });
  };
  const change = (index: number, answer: string) => setAnswers(answers.with(index, answer));
  return (
    <>
      <div class="columns">
        <form onSubmit={score}>
          <Field label="Prompt">
            <textarea rows={2} required value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />
          </Field>
          {answers.map((answer, index) => (
            <Field key={index} label={`Answer ${index + 1}`}>
              <textarea
                rows={2}
                required={index === 0}
                value={answer}
                onInput={(event) => change(index, event.currentTarget.value)}
              />
            </Field>
          ))}
          <div class="row">
            <button
              type="button"
              disabled={answers.length >= MOST_ANSWERS}
              onClick={() => setAnswers([...answers, ""])}
            >
              Add an answer
            </button>
            <button type="button" disabled={answers.length < 2} onClick={() => setAnswers(answers.slice(0, -1))}>
              Remove the last
            </button>
          </div>
          <TaskButtons task={task}>Score</TaskButtons>
        </form>
        <div>{props.children}</div>
      </div>
      {ranked && <Ranking names={names} ranked={ranked} now={describeWeights(weights)} onExplain={setExplained} />}
      {ranked && explained !== null && (
        <Explanation key={explained} names={names} prompt={ranked.prompt} answer={ranked.answers[explained]!} />
      )}
    </>
  );
}
