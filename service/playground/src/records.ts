/** Files of answers: JSON Lines with a prompt and its answers, pairs, or finished conversations. */

import type { Message } from "./types";

/** A prompt and its answers, as the server's items have them. */
export interface Item {
  prompt: string | Message[];
  candidates: (string | Message[])[];
  chosenFirst?: boolean; // the file itself says that the first of two is better
}

const ANSWERS = ["candidates", "answers", "responses", "completions"];
const ANSWER = ["answer", "response", "completion", "output"];

/** Read all lines. Throws an `Error` that names the first line that is wrong. */
export function readItems(text: string): Item[] {
  const lines = text.replace(/^\ufeff/, "").split("\n");
  const items = lines.flatMap((line, index) => (line.trim() ? [readLine(line, index + 1)] : []));
  if (!items.length) throw new Error("the file has no lines");
  return items;
}

function readLine(line: string, number: number): Item {
  let row: Record<string, unknown>;
  try {
    row = JSON.parse(line);
  } catch {
    throw new Error(`line ${number} is not JSON`);
  }
  const item = row && typeof row === "object" ? readRow(row) : null;
  if (!item) {
    throw new Error(`line ${number}: give prompt with candidates, prompt with chosen and rejected, or messages`);
  }
  return item;
}

function readRow(row: Record<string, unknown>): Item | null {
  if (Array.isArray(row.messages) && row.messages.length > 1) {
    return { prompt: row.messages.slice(0, -1), candidates: [row.messages.slice(-1)] };
  }
  const several = ANSWERS.map((name) => row[name]).find(Array.isArray);
  const pair = row.chosen && row.rejected ? [row.chosen, row.rejected] : undefined;
  const single = ANSWER.map((name) => row[name]).find((value) => typeof value === "string");
  const candidates = several ?? pair ?? (single === undefined ? [] : [single]);
  if (!isText(row.prompt) || !candidates.length || !candidates.every(isText)) return null;
  return { prompt: row.prompt, candidates, chosenFirst: !several && Boolean(pair) };
}

const isText = (value: unknown): value is string | Message[] => typeof value === "string" || Array.isArray(value);

/** The text of an answer or a prompt. */
export const textOf = (given: string | Message[]) =>
  typeof given === "string" ? given : given.map((message) => message.content).join("\n\n");

/** As messages, in TRL's format. */
export const messagesOf = (given: string | Message[], role: string): Message[] =>
  typeof given === "string" ? [{ role, content: given }] : given;
