/** How a family is steered: a slider for each objective, a triangle for three of them, and presets. */

import { useState } from "preact/hooks";
import { Triangle } from "./triangle";
import type { ModelCard, Weights } from "./types";
import { Sliders } from "./ui";

const WAYS: Record<string, string> = {
  soup: "a soup of experts",
  prompt: "words in the prompt",
  "reward-tags": "reward tags in the prompt",
};

export function Steering(props: { family: ModelCard; value: Weights; onChange: (value: Weights) => void }) {
  const { family, value, onChange } = props;
  const names = family.objectives;
  const [corners, setCorners] = useState(names.slice(0, 3));
  const change = (index: number, name: string) => {
    const other = corners.indexOf(name);
    setCorners(other < 0 ? corners.with(index, name) : corners.with(index, name).with(other, corners[index]!));
  };
  return (
    <fieldset class="card">
      <legend>Taste</legend>
      <Sliders names={names} value={value} onChange={onChange} />
      <div class="row">
        {Object.entries(family.presets).map(([preset, weights]) => (
          <button key={preset} type="button" onClick={() => onChange(weights)}>
            {preset}
          </button>
        ))}
        <button type="button" onClick={() => onChange({})}>
          none (the base)
        </button>
      </div>
      {names.length > 2 && <Triangle corners={corners} value={value} onChange={onChange} />}
      {names.length > 3 && (
        <div class="row">
          {corners.map((corner, index) => (
            <select
              key={index}
              aria-label={`Corner ${index + 1} of the triangle`}
              value={corner}
              onChange={(event) => change(index, event.currentTarget.value)}
            >
              {names.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          ))}
        </div>
      )}
      <p class="note">Steered by {family.steering.map((way) => WAYS[way] ?? way).join(", ")}.</p>
    </fieldset>
  );
}

/** The weights as a person reads them. */
export function describeWeights(weights: Weights): string {
  const total = Object.values(weights).reduce((sum, each) => sum + each, 0);
  const parts = Object.entries(weights).filter(([, weight]) => weight > 0);
  if (!parts.length) return "the base";
  return parts.map(([name, weight]) => `${name} ${Math.round((100 * weight) / total)} %`).join(", ");
}
