/** Texts of a family: streamed, several settings in one call, or the best of several. */

import { call, stream } from "./api";
import type { Message, Scored, Scores, Weights } from "./types";
import { positive } from "./ui";

export interface Ask {
  model: string;
  messages: Message[];
  max_tokens: number;
  temperature: number;
  seed: number;
}

/** A text that is written, and its rewards when they are known. */
export interface Answer {
  setting: Weights;
  text: string;
  scores?: Scores | null;
  reward?: number;
}

interface Chunk {
  choices: { index: number; delta: { content?: string } }[];
}

/** Stream an answer for each setting, all in one call; `show` gets all texts so far whenever one grows. */
export async function streamAnswers(
  ask: Ask,
  settings: Weights[],
  show: (answers: Answer[]) => void,
  signal: AbortSignal,
): Promise<Answer[]> {
  let answers: Answer[] = settings.map((setting) => ({ setting, text: "" }));
  const steered = settings.map(positive);
  const preferences = settings.length > 1 ? steered : steered[0];
  for await (const chunk of stream<Chunk>("/v1/chat/completions", { ...ask, preferences }, signal)) {
    for (const { index, delta } of chunk.choices) {
      if (!delta.content) continue;
      const grown = answers[index]!;
      answers = answers.with(index, { ...grown, text: grown.text + delta.content });
    }
    show(answers);
  }
  return answers;
}

interface Reply {
  choices: { message: { content: string }; rewards: Scores; reward: number | null }[];
}

/** Write `n` answers with one setting, the best by its rewards first. */
export async function writeBest(ask: Ask, setting: Weights, n: number, signal: AbortSignal): Promise<Answer[]> {
  const body = { ...ask, preferences: positive(setting), candidates: { n, select: "all" } };
  const reply = await call<Reply>("/v1/chat/completions", body, signal);
  const answers = reply.choices.map(({ message, reward }) => ({
    setting,
    text: message.content,
    reward: reward ?? -Infinity,
  }));
  return answers.sort((one, other) => other.reward - one.reward);
}

/** Score texts as answers to a conversation. One that cannot be scored has null. */
export async function scoreTexts(
  prompt: Message[],
  texts: string[],
  rewards: string[],
  signal: AbortSignal,
): Promise<(Scores | null)[]> {
  const body = { items: [{ prompt, candidates: texts }], rewards, truncate: true, on_error: "item" };
  const reply = await call<{ data: { candidates: Scored[] }[] }>("/v1/score", body, signal);
  return texts.map((_, index) => reply.data[0]!.candidates[index]?.scores ?? null);
}
