/** Pairs of answers that a person judges, and the weights that explain the choices. */

import { call } from "./api";
import { messagesOf, type Item } from "./records";
import type { Message, Weights } from "./types";
import { scoreTexts } from "./writing";

export type Side = 0 | 1;

/** Two answers to one prompt; `rewards` are in deviations. */
export interface Pair {
  prompt: string | Message[];
  answers: [string, string];
  rewards: [Weights, Weights];
}

export interface Choice {
  pair: Pair;
  chosen: Side;
}

export interface Fit {
  weights: Weights;
  intervals: Record<string, [number, number]>;
  decisiveness: number;
  accuracy: number;
  pairs_needed: number | null;
  preset: Record<string, Weights>;
}

/** Fit weights to choices, by the rewards of the answers. */
export function fitWeights(choices: Choice[], preset: string, signal: AbortSignal): Promise<Fit> {
  const pairs = choices.map(({ pair, chosen }) => ({
    chosen_rewards: pair.rewards[chosen],
    rejected_rewards: pair.rewards[1 - chosen],
  }));
  return call("/v1/preferences/fit", { pairs, preset }, signal);
}

/** Write two answers to a prompt with different weights, drawn at random. */
export async function writePair(
  model: string,
  objectives: string[],
  prompt: string,
  rewards: string[],
  signal: AbortSignal,
): Promise<Pair> {
  const messages: Message[] = [{ role: "user", content: prompt }];
  const preferences = [drawWeights(objectives), drawWeights(objectives)];
  const body = { model, messages, preferences, max_tokens: 64, seed: Math.floor(Math.random() * 2 ** 31) };
  const reply = await call<{ choices: { message: { content: string } }[] }>("/v1/chat/completions", body, signal);
  const [one, other] = reply.choices.map((choice) => choice.message.content) as [string, string];
  return scorePair(prompt, [one, other], rewards, signal);
}

/** Score the first two answers of an item of a file. */
export async function scorePair(
  prompt: Item["prompt"],
  answers: [string, string],
  rewards: string[],
  signal: AbortSignal,
): Promise<Pair> {
  const scores = await scoreTexts(messagesOf(prompt, "user"), answers, rewards, signal);
  const failed = scores.indexOf(null);
  if (failed >= 0) throw new Error(`the answer ${"AB"[failed]} of this pair cannot be scored; skip it`);
  const read = scores.map((each) =>
    Object.fromEntries(Object.entries(each!).map(([name, score]) => [name, score.calibrated ?? score.raw])),
  ) as [Weights, Weights];
  return { prompt, answers, rewards: read };
}

/** Weights of one objective or two, so that pairs differ much. */
function drawWeights(objectives: string[]): Weights {
  const [first, second] = objectives.toSorted(() => Math.random() - 0.5);
  const share = Math.random();
  return second ? { [first!]: share, [second]: 1 - share } : { [first!]: 1 };
}

/** A choice in TRL's format. */
export const toTrlPair = ({ pair, chosen }: Choice) => ({
  prompt: messagesOf(pair.prompt, "user"),
  chosen: messagesOf(pair.answers[chosen], "assistant"),
  rejected: messagesOf(pair.answers[chosen ? 0 : 1], "assistant"),
});
