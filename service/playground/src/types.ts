/** What the views read of the server's replies. */

export type Weights = Record<string, number>;

export interface ModelCard {
  id: string;
  kind: "reward" | "policy" | "preset";
  objectives: string[];
  version: string | null;
  fingerprint: string | null;
  base: string | null;
  max_length: number | null;
  steering: string[];
  presets: Record<string, Weights>;
  calibration: Record<string, { mean: number; std: number; temperature: number }>;
  calibrated: boolean | null;
  input: "conversation" | "pair" | "steps" | null;
  evaluation: Record<string, Record<string, number>>;
  licences: string[];
  runtime: string | null;
  loaded: boolean;
}

export interface Score {
  raw: number;
  calibrated: number | null;
}

export type Scores = Record<string, Score>;

export interface Scored {
  scores: Scores | null;
  reward: number | null;
  tokens: number;
  truncated: boolean;
  normalised?: string[];
  error: { message: string } | null;
}

export interface Message {
  role: string;
  content: string;
}
