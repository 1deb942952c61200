/** Rewards of an answer as bars, with those of the base beside them. */

import type { Scores } from "./types";
import { colourOf, signed } from "./ui";

const WIDEST = 3; // deviations at the ends of a bar

export function RewardBars(props: { names: string[]; scores: Scores; base?: Scores | null }) {
  const { names, scores, base } = props;
  return (
    <table class="bars">
      <caption class="note">Rewards{base && ", the base in grey"}</caption>
      <tbody>
        {names.map((name) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td class="tracks">
              <Bar value={valueOf(scores, name)} colour={colourOf(name)} />
              {base && <Bar value={valueOf(base, name)} colour="var(--c7)" />}
            </td>
            <td class="number">
              {signed(valueOf(scores, name))}
              {base && <span class="note"> {signed(valueOf(base, name))}</span>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

const valueOf = (scores: Scores, name: string) => scores[name]!.calibrated ?? scores[name]!.raw;

function Bar({ value, colour }: { value: number; colour: string }) {
  const share = Math.max(-1, Math.min(1, value / WIDEST)) / 2;
  const left = `${100 * Math.min(0.5, 0.5 + share)}%`;
  return (
    <div class="track">
      <div style={{ left, width: `${100 * Math.abs(share)}%`, background: colour }} />
    </div>
  );
}
