/** What a sweep found: mean rewards by weight, the Pareto front, and the texts of each point. */

import { dot, lineX, lineY, ruleX, ruleY } from "@observablehq/plot";
import { useMemo, useState } from "preact/hooks";
import { Chart } from "./chart";
import { describeWeights } from "./steering";
import { findFront, type SweptPoint } from "./sweeping";
import { PlainText } from "./text";
import { colourOf, download, Scroll, signed, toLines } from "./ui";

export function SweepResult(props: { points: SweptPoint[]; objectives: string[]; rewards: string[] }) {
  const { points, rewards } = props;
  const [objectives] = useState(props.objectives); // those of this result, also when the form changes
  const [axes, setAxes] = useState(() => chooseAxes(objectives, rewards));
  const [opened, setOpened] = useState<number | null>(null);
  const [x, y] = axes as [string, string];
  const front = useMemo(() => findFront(points, x, y), [points, x, y]);
  return (
    <>
      <div class="row">
        {axes.map((axis, index) => (
          <label key={index}>
            {index ? "against" : "Reward"}{" "}
            <select value={axis} onChange={(event) => setAxes(axes.with(index, event.currentTarget.value))}>
              {rewards.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
        ))}
        <button type="button" onClick={() => download("sweep.jsonl", toLines(listRows(points)))}>
          Download
        </button>
      </div>
      <div class="columns">
        {objectives.length === 2 && <ByWeight points={points} objective={objectives[1]!} rewards={axes} />}
        <Front points={points} front={front} x={x} y={y} onOpen={setOpened} />
      </div>
      <Scroll label="Mean rewards of all weights">
        <table>
          <thead>
            <tr>
              <th>Weights</th>
              <th class="number">{x}</th>
              <th class="number">{y}</th>
              <th>Pareto front</th>
              <th>Texts</th>
            </tr>
          </thead>
          <tbody>
            {points.map((point, index) => (
              <tr key={index}>
                <td>{describeWeights(point.setting)}</td>
                {[x, y].map((name, axis) => (
                  <td key={axis} class="number">
                    {signed(point.means[name]!.mean)} ± {point.means[name]!.half.toFixed(2)}
                  </td>
                ))}
                <td>{front.includes(point) && "yes"}</td>
                <td>
                  <button
                    type="button"
                    aria-label={`Read the texts of ${describeWeights(point.setting)}`}
                    onClick={() => setOpened(index)}
                  >
                    Read
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {opened !== null && points[opened] && <Texts point={points[opened]} />}
    </>
  );
}

/** The rewards that are named as the first two objectives, or others where there are none. */
function chooseAxes(objectives: string[], rewards: string[]): string[] {
  const named = objectives.filter((name) => rewards.includes(name));
  return [...named, ...rewards.filter((name) => !named.includes(name))].slice(0, 2);
}

function ByWeight({ points, objective, rewards }: { points: SweptPoint[]; objective: string; rewards: string[] }) {
  const options = useMemo(() => {
    const rows = rewards.flatMap((name) =>
      points.map((point) => ({ name, weight: point.setting[objective]!, ...point.means[name]! })),
    );
    const channels = { x: "weight", stroke: (row: { name: string }) => colourOf(row.name), z: "name" };
    return {
      height: 300,
      marginLeft: 45,
      x: { label: `weight of ${objective}` },
      y: { label: "mean reward", grid: true },
      color: { type: "identity" as const },
      marks: [
        ruleX(rows, { ...channels, y1: (row) => row.mean - row.half, y2: (row) => row.mean + row.half }),
        lineY(rows, { ...channels, y: "mean", strokeWidth: 2 }),
        dot(rows, { ...channels, y: "mean", fill: "var(--card)" }),
      ],
    };
  }, [points, objective, rewards]);
  return (
    <div class="card">
      <h2>Mean rewards by weight, with 95 % intervals</h2>
      <p class="legend">
        {rewards.map((name, index) => (
          <span key={index}>
            <span class="swatch" style={{ background: colourOf(name) }} /> {name}
          </span>
        ))}
      </p>
      <Chart
        label={`Mean rewards against the weight of ${objective}; the table below has the numbers`}
        options={options}
      />
    </div>
  );
}

function Front(props: {
  points: SweptPoint[];
  front: SweptPoint[];
  x: string;
  y: string;
  onOpen: (index: number) => void;
}) {
  const { points, front, x, y, onOpen } = props;
  const options = useMemo(() => {
    const of = (point: SweptPoint, name: string, side = 0) => point.means[name]!.mean + side * point.means[name]!.half;
    const across = { x: (point: SweptPoint) => of(point, x) };
    const up = { y: (point: SweptPoint) => of(point, y) };
    const faint = { stroke: "var(--c0)", strokeOpacity: 0.35 };
    return {
      height: 300,
      marginLeft: 45,
      x: { label: x, grid: true },
      y: { label: y, grid: true },
      marks: [
        ruleX(points, { ...across, ...faint, y1: (point) => of(point, y, -1), y2: (point) => of(point, y, 1) }),
        ruleY(points, { ...up, ...faint, x1: (point) => of(point, x, -1), x2: (point) => of(point, x, 1) }),
        lineX(front, { ...across, ...up, stroke: "var(--c1)", strokeWidth: 2 }),
        dot(points, { ...across, ...up, fill: "var(--c0)", r: 5, className: "pick" }),
      ],
    };
  }, [points, front, x, y]);
  return (
    <div class="card">
      <h2>
        The Pareto front of {x} and {y}
      </h2>
      <p class="note">Select a point to read its texts.</p>
      <Chart
        label={`${y} against ${x}; the table below says which points are on the front`}
        options={options}
        onPick={onOpen}
      />
    </div>
  );
}

function Texts({ point }: { point: SweptPoint }) {
  return (
    <section aria-label="Texts" class="card" aria-live="polite">
      <h2>{describeWeights(point.setting)}</h2>
      {point.written.map((each, index) => (
        <div key={index} class="extreme">
          <strong>
            <PlainText>{each.prompt}</PlainText>
          </strong>
          <PlainText>{each.text}</PlainText>
        </div>
      ))}
    </section>
  );
}

const listRows = (points: SweptPoint[]) =>
  points.flatMap(({ setting, written }) => written.map((each) => ({ preferences: setting, ...each })));
