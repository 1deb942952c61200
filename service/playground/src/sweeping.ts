/** A sweep: the same prompts answered with many weights, and the mean rewards of each. */

import { call } from "./api";
import type { Message, Weights } from "./types";
import { scoreTexts } from "./writing";

export interface Written {
  prompt: string;
  text: string;
  rewards: Weights;
}

/** The texts of one setting, and by reward the mean of all of them and half of its 95 % interval. */
export interface SweptPoint {
  setting: Weights;
  written: Written[];
  means: Record<string, { mean: number; half: number }>;
}

/** All weights of two or three objectives on a grid with `steps` on each side; they add up to 1. */
export function listSettings(objectives: string[], steps: number): Weights[] {
  const parts = steps - 1;
  const firsts = Array.from({ length: steps }, (_, part) => part);
  const counts =
    objectives.length === 2
      ? firsts.map((part) => [parts - part, part])
      : firsts.flatMap((one) => firsts.slice(0, steps - one).map((two) => [one, two, parts - one - two]));
  return counts.map((count) => Object.fromEntries(objectives.map((name, index) => [name, count[index]! / parts])));
}

interface Plan {
  model: string;
  settings: Weights[];
  rewards: string[];
  max_tokens: number;
}

/** Answer one prompt with all settings in one call, and score the texts in another; one text a setting. */
export async function sweepPrompt(plan: Plan, prompt: string, seed: number, signal: AbortSignal): Promise<Written[]> {
  const { model, settings, rewards, max_tokens } = plan;
  const messages: Message[] = [{ role: "user", content: prompt }];
  const preferences = settings.map((setting) => Object.fromEntries(Object.entries(setting).filter(([, part]) => part)));
  const body = { model, messages, max_tokens, seed, preferences };
  const reply = await call<{ choices: { message: { content: string } }[] }>("/v1/chat/completions", body, signal);
  const texts = reply.choices.map((choice) => choice.message.content);
  const scores = await scoreTexts(messages, texts, rewards, signal);
  return texts.map((text, index) => ({
    prompt,
    text,
    rewards: Object.fromEntries(
      Object.entries(scores[index] ?? {}).map(([name, score]) => [name, score.calibrated ?? score.raw]),
    ),
  }));
}

/** Put the texts of all prompts together by setting. */
export function summarise(settings: Weights[], rewards: string[], written: Written[][]): SweptPoint[] {
  return settings.map((setting, index) => {
    const texts = written.map((each) => each[index]!);
    const means = rewards.map((name) => [name, measure(texts.flatMap((text) => text.rewards[name] ?? []))] as const);
    return { setting, written: texts, means: Object.fromEntries(means) };
  });
}

function measure(values: number[]) {
  const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
  const squares = values.reduce((sum, each) => sum + (each - mean) ** 2, 0);
  const half = values.length > 1 ? 1.96 * Math.sqrt(squares / (values.length - 1) / values.length) : 0;
  return { mean, half };
}

/** The points that no other one beats in both rewards, from left to right. */
export function findFront(points: SweptPoint[], x: string, y: string): SweptPoint[] {
  const at = (point: SweptPoint, name: string) => point.means[name]!.mean;
  const beats = (one: SweptPoint, other: SweptPoint) =>
    at(one, x) >= at(other, x) &&
    at(one, y) >= at(other, y) &&
    (at(one, x) > at(other, x) || at(one, y) > at(other, y));
  const front = points.filter((point) => !points.some((other) => beats(other, point)));
  return front.sort((one, other) => at(one, x) - at(other, x));
}
