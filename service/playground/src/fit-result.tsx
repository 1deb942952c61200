/** The weights that explain choices, how sure they are, and what can be saved. */

import { toTrlPair, type Choice, type Fit } from "./fitting";
import { colourOf, download, percent, toLines } from "./ui";

export function FitResult({ fit, choices }: { fit: Fit | null; choices: Choice[] }) {
  if (!fit || !choices.length) return <p class="note">No choices yet.</p>;
  return (
    <>
      <h2>Your weights after {choices.length === 1 ? "1 choice" : `${choices.length} choices`}</h2>
      <table class="bars">
        <caption class="note">With the intervals that hold them with 95 %</caption>
        <tbody>
          {Object.entries(fit.weights).map(([name, weight]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td class="tracks">
                <Interval weight={weight} interval={fit.intervals[name]!} colour={colourOf(name)} />
              </td>
              <td class="number">
                {percent(weight)}
                <div class="note">
                  {percent(fit.intervals[name]![0])} to {percent(fit.intervals[name]![1])}
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>
        They explain {percent(fit.accuracy)} of the choices.{" "}
        {fit.pairs_needed === null
          ? "Choices of this kind will not tell the weights apart; try other pairs."
          : fit.pairs_needed > 0
            ? `About ${fit.pairs_needed} more choices make every interval narrower than 20 %.`
            : "Every interval is narrower than 20 %."}
      </p>
      <div class="row">
        <button
          type="button"
          onClick={() => download("preset.json", JSON.stringify(fit.preset, null, 2) + "\n", "application/json")}
        >
          Save as a preset
        </button>
        <button type="button" onClick={() => download("choices.jsonl", toLines(choices.map(toTrlPair)))}>
          Save as training pairs
        </button>
      </div>
    </>
  );
}

function Interval(props: { weight: number; interval: [number, number]; colour: string }) {
  const [low, high] = props.interval;
  return (
    <div class="track interval">
      <div style={{ left: `${100 * low}%`, width: `${100 * (high - low)}%`, background: props.colour }} />
      <span style={{ left: `${100 * props.weight}%` }} />
    </div>
  );
}
