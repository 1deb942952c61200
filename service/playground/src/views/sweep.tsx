/** Sweep the weights of two or three objectives over some prompts, and see what it does to the rewards. */

import { useState } from "preact/hooks";
import type { View } from "../app";
import { SweepResult } from "../sweep-result";
import { listSettings, summarise, sweepPrompt, type SweptPoint, type Written } from "../sweeping";
import type { ModelCard } from "../types";
import { Field, TaskButtons, useTask } from "../ui";
import { listRewards } from "./score";

const PROMPTS = ["Describe the rain.", "Why do leaves fall in autumn?", "How do I cook rice?"];
const STEPS = [3, 5, 7, 9];

export const Sweep: View = ({ models }) => {
  const families = models.filter((each) => each.kind === "policy" && each.objectives.length > 1);
  const [name, setName] = useState(families[0]?.id);
  const family = families.find((each) => each.id === name);
  const rewards = listRewards(models);
  if (!family) return <p>This server has no policy with several objectives.</p>;
  if (rewards.length < 2) return <p>A sweep is measured by two rewards, and this server has fewer.</p>;
  return (
    <>
      {families.length > 1 && (
        <Field label="Family">
          <select value={name} onChange={(event) => setName(event.currentTarget.value)}>
            {families.map((each) => (
              <option key={each.id}>{each.id}</option>
            ))}
          </select>
        </Field>
      )}
      <Sweeping key={name} family={family} rewards={rewards} />
    </>
  );
};

function Sweeping({ family, rewards }: { family: ModelCard; rewards: string[] }) {
  const [objectives, setObjectives] = useState(family.objectives.slice(0, 2));
  const [steps, setSteps] = useState(5);
  const [longest, setLongest] = useState(48);
  const [prompts, setPrompts] = useState(PROMPTS.join("\n"));
  const [done, setDone] = useState({ prompts: 0, of: 0 });
  const [points, setPoints] = useState<SweptPoint[] | null>(null);
  const task = useTask();

  const choose = (name: string, chosen: boolean) =>
    setObjectives(family.objectives.filter((each) => (each === name ? chosen : objectives.includes(each))));
  const sweep = (event: SubmitEvent) => {
    event.preventDefault();
    const settings = listSettings(objectives, steps);
    const plan = { model: family.id, settings, rewards, max_tokens: longest };
    const asked = prompts.split("\n").filter((prompt) => prompt.trim());
    setPoints(null);
    setDone({ prompts: 0, of: asked.length });
    void task.run(async (signal) => {
      const written: Written[][] = [];
      for (const [index, prompt] of asked.entries()) {
        written.push(await sweepPrompt(plan, prompt, index, signal));
        setDone({ prompts: index + 1, of: asked.length });
        setPoints(summarise(settings, rewards, written));
      }
    });
  };
  return (
    <>
      <form onSubmit={sweep} class="columns">
        <Field label="Prompts, one in each line">
          <textarea rows={6} required value={prompts} onInput={(event) => setPrompts(event.currentTarget.value)} />
        </Field>
        <div>
          <fieldset>
            <legend>Two or three objectives</legend>
            {family.objectives.map((name) => (
              <label key={name} class="inline">
                <input
                  type="checkbox"
                  checked={objectives.includes(name)}
                  disabled={!objectives.includes(name) && objectives.length === 3}
                  onChange={(event) => choose(name, event.currentTarget.checked)}
                />{" "}
                {name}
              </label>
            ))}
          </fieldset>
          <div class="row">
            <Field label="Weights on each side">
              <select value={steps} onChange={(event) => setSteps(Number(event.currentTarget.value))}>
                {STEPS.map((each) => (
                  <option key={each}>{each}</option>
                ))}
              </select>
            </Field>
            <Field label="Longest answer, in tokens">
              <input
                type="number"
                required
                min="1"
                max="2048"
                value={longest}
                onInput={(event) => setLongest(event.currentTarget.valueAsNumber)}
              />
            </Field>
          </div>
          <TaskButtons task={task} disabled={objectives.length < 2}>
            Sweep
          </TaskButtons>
          {done.of > 0 && (
            <label class="row">
              <progress value={done.prompts} max={done.of} />
              {done.prompts} of {done.of} prompts
            </label>
          )}
        </div>
      </form>
      {points && <SweepResult points={points} objectives={objectives} rewards={rewards} />}
    </>
  );
}
