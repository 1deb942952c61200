/** Talk with a family, and taste how preferences change its answers. */

import { useState } from "preact/hooks";
import type { View } from "../app";
import { describeWeights, Steering } from "../steering";
import { Turn, type Spoken } from "../turn";
import type { Message, ModelCard, Weights } from "../types";
import { Choice, Field, TaskButtons, useTask } from "../ui";
import { scoreTexts, streamAnswers, writeBest, type Answer, type Ask } from "../writing";
import { listRewards } from "./score";

const WAYS = ["one answer", "compare settings", "best of several"] as const;
type Way = (typeof WAYS)[number];
const MOST_COMPARED = 4;
const BEST_OF = 4;

export const Taste: View = ({ models }) => {
  const families = models.filter((each) => each.kind === "policy");
  const [name, setName] = useState(families[0]?.id);
  const family = families.find((each) => each.id === name);
  if (!family) return <p>This server has no policy that writes texts.</p>;
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
      <Chat key={name} family={family} rewards={listRewards(models)} />
    </>
  );
};

function Chat({ family, rewards }: { family: ModelCard; rewards: string[] }) {
  const [setting, setSetting] = useState<Weights>(Object.values(family.presets)[0] ?? {});
  const [compared, setCompared] = useState<Weights[]>([]);
  const [way, setWay] = useState<Way>(WAYS[0]);
  const [withBase, setWithBase] = useState(true);
  const [longest, setLongest] = useState(80);
  const [temperature, setTemperature] = useState(0.7);
  const [question, setQuestion] = useState("Describe the rain.");
  const [turns, setTurns] = useState<Spoken[]>([]);
  const task = useTask();

  const settings = way === "compare settings" ? compared : [setting];
  const speak = (event: SubmitEvent) => {
    event.preventDefault();
    const messages = [...listMessages(turns), { role: "user", content: question }];
    const ask: Ask = { model: family.id, messages, max_tokens: longest, temperature, seed: turns.length + 1 };
    const show = (change: Partial<Spoken>) =>
      setTurns((all) => all.with(turns.length, { ...all[turns.length]!, ...change }));
    setTurns([...turns, { question, way, kept: 0, answers: settings.map((each) => ({ setting: each, text: "" })) }]);
    void task.run(async (signal) => {
      const answers =
        way === "best of several"
          ? await writeBest(ask, setting, BEST_OF, signal)
          : await streamAnswers(ask, settings, (written) => show({ answers: written }), signal);
      show({ answers });
      const [base] = withBase ? await streamAnswers(ask, [{}], () => {}, signal) : [];
      if (rewards.length) show(await judge(messages, answers, base, rewards, signal));
      else show({ base });
      setQuestion("");
    });
  };
  return (
    <div class="columns chat">
      <div>
        <div aria-live="polite">
          {turns.map((turn, index) => (
            <Turn
              key={index}
              turn={turn}
              rewards={rewards}
              onKeep={(kept) => setTurns(turns.with(index, { ...turn, kept }))}
            />
          ))}
        </div>
        <form onSubmit={speak}>
          <Field label={turns.length ? "Your next message" : "Your message"}>
            <textarea rows={3} required value={question} onInput={(event) => setQuestion(event.currentTarget.value)} />
          </Field>
          <TaskButtons task={task} disabled={settings.length < (way === "compare settings" ? 2 : 1)}>
            Send
          </TaskButtons>
          {turns.length > 0 && !task.busy && (
            <button type="button" onClick={() => setTurns([])}>
              New conversation
            </button>
          )}
        </form>
      </div>
      <div>
        <Steering family={family} value={setting} onChange={setSetting} />
        <div class="card">
          <Choice label="Answer with" options={WAYS} value={way} onChange={setWay} />
          {way === "compare settings" && <Compared settings={compared} onChange={setCompared} current={setting} />}
          <label>
            <input type="checkbox" checked={withBase} onChange={(event) => setWithBase(event.currentTarget.checked)} />{" "}
            Write the base's answer too
          </label>
          <div class="row">
            <NumberField label="Longest answer, in tokens" value={longest} most={2048} step={1} onChange={setLongest} />
            <NumberField label="Temperature" value={temperature} most={2} step={0.1} onChange={setTemperature} />
          </div>
        </div>
      </div>
    </div>
  );
}

function Compared(props: { settings: Weights[]; current: Weights; onChange: (settings: Weights[]) => void }) {
  const { settings, current, onChange } = props;
  return (
    <div>
      <p class="note">Set the sliders and add two to four settings. One call answers all of them.</p>
      <ul>
        {settings.map((setting, index) => (
          <li key={index}>
            {describeWeights(setting)}{" "}
            <button
              type="button"
              aria-label={`Remove ${describeWeights(setting)}`}
              onClick={() => onChange(settings.toSpliced(index, 1))}
            >
              ×
            </button>
          </li>
        ))}
      </ul>
      <button
        type="button"
        disabled={settings.length >= MOST_COMPARED || !Object.values(current).some((weight) => weight > 0)}
        onClick={() => onChange([...settings, current])}
      >
        Add {describeWeights(current)}
      </button>
    </div>
  );
}

function NumberField(props: {
  label: string;
  value: number;
  most: number;
  step: number;
  onChange: (value: number) => void;
}) {
  return (
    <Field label={props.label}>
      <input
        type="number"
        required
        min={props.step === 1 ? 1 : 0}
        max={props.most}
        step={props.step}
        value={props.value}
        onInput={(event) => props.onChange(event.currentTarget.valueAsNumber)}
      />
    </Field>
  );
}

/** The conversation so far, with the answers that the person kept. A question without an answer is left out. */
function listMessages(turns: Spoken[]): Message[] {
  const answered = turns.filter(({ answers, kept }) => answers[kept]!.text);
  return answered.flatMap(({ question, answers, kept }) => [
    { role: "user", content: question },
    { role: "assistant", content: answers[kept]!.text },
  ]);
}

/** Score the answers and the base's, in one call. */
async function judge(
  messages: Message[],
  answers: Answer[],
  base: Answer | undefined,
  rewards: string[],
  signal: AbortSignal,
): Promise<Partial<Spoken>> {
  const texts = [...answers, ...(base ? [base] : [])].map((each) => each.text);
  const scores = await scoreTexts(messages, texts, rewards, signal);
  return {
    answers: answers.map((each, index) => ({ ...each, scores: scores[index] })),
    base: base && { ...base, scores: scores[answers.length] },
  };
}
