/** Parts that several views use. */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Refusal } from "./api";
import type { Weights } from "./types";

const coloured: string[] = [];

/** The colour of a reward or an objective: the same in all views. */
export function colourOf(name: string) {
  if (!coloured.includes(name)) coloured.push(name);
  return `var(--c${coloured.indexOf(name) % 8})`;
}

export const signed = (value: number, digits = 2) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
export const percent = (value: number) => `${(100 * value).toFixed(1)} %`;

/** Work that a button starts, one at a time: whether it runs, why it failed, and how it is stopped. */
export function useTask() {
  const [state, setState] = useState<{ busy: boolean; failure: string | null }>({ busy: false, failure: null });
  const running = useRef<AbortController | null>(null);
  useEffect(() => () => running.current?.abort(), []);

  const run = async (work: (signal: AbortSignal) => Promise<void>) => {
    running.current?.abort();
    const controller = (running.current = new AbortController());
    setState({ busy: true, failure: null });
    let failure: string | null = null;
    try {
      await work(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) failure = explain(error);
    }
    if (running.current === controller) setState({ busy: false, failure });
  };
  return { ...state, run, stop: () => running.current?.abort() };
}

export type Task = ReturnType<typeof useTask>;

/** The sentence of an error for the person. */
export function explain(error: unknown): string {
  if (!(error instanceof Refusal)) return error instanceof Error ? error.message : String(error);
  return error.param && !error.message.startsWith(error.param) ? `${error.param}: ${error.message}` : error.message;
}

/** The button that starts a task, the one that stops it, and why it failed. */
export function TaskButtons(props: { task: Task; children: string; disabled?: boolean }) {
  const { task, children, disabled = false } = props;
  return (
    <div class="row">
      <button type="submit" class="primary" disabled={task.busy || disabled}>
        {children}
      </button>
      {task.busy && (
        <button type="button" onClick={task.stop}>
          Stop
        </button>
      )}
      <Status busy={task.busy} failure={task.failure} />
    </div>
  );
}

/** Tells that work runs, or why it failed; also to a screen reader. */
export function Status({ busy = false, failure }: { busy?: boolean; failure?: string | null }) {
  return (
    <>
      <span class="note" role="status">
        {busy && "Working …"}
      </span>
      {failure && (
        <p class="failure" role="alert">
          {failure}
        </p>
      )}
    </>
  );
}

export function Field({ label, children, note }: { label: string; note?: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>{label}</span>
      {children}
      {note && <span class="note">{note}</span>}
    </label>
  );
}

/** A slider for each name, from 0 to 1. What counts is their proportion. */
export function Sliders(props: { names: string[]; value: Weights; onChange: (value: Weights) => void }) {
  const { names, value, onChange } = props;
  const total = names.reduce((sum, name) => sum + (value[name] ?? 0), 0);
  return (
    <div class="sliders">
      {names.map((name) => (
        <label key={name}>
          <span class="swatch" style={{ background: colourOf(name) }} />
          <span>{name}</span>
          <input
            type="range"
            min="0"
            max="1"
            step="0.01"
            value={value[name] ?? 0}
            style={{ accentColor: colourOf(name) }}
            onInput={(event) => onChange({ ...value, [name]: event.currentTarget.valueAsNumber })}
          />
          <output>{percent(total ? (value[name] ?? 0) / total : 0)}</output>
        </label>
      ))}
    </div>
  );
}

/** Choose one of a few. */
export function Choice<T extends string>(props: {
  label: string;
  options: readonly T[];
  value: T;
  onChange: (value: T) => void;
}) {
  const name = useId();
  return (
    <fieldset class="choice">
      <legend>{props.label}</legend>
      {props.options.map((option) => (
        <label key={option}>
          <input type="radio" name={name} checked={option === props.value} onChange={() => props.onChange(option)} />
          {option}
        </label>
      ))}
    </fieldset>
  );
}

/** A table that is wider than a phone. It can be scrolled by keyboard, and has a name for a screen reader. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="scroll" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}

/** Save a text as a file. */
export function download(name: string, content: string, type = "application/jsonl") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

export const toLines = (rows: unknown[]) => rows.map((row) => JSON.stringify(row) + "\n").join("");

/** The positive weights; undefined if there is none. */
export function positive(weights: Weights): Weights | undefined {
  const found = Object.entries(weights).filter(([, weight]) => weight > 0);
  return found.length ? Object.fromEntries(found) : undefined;
}
