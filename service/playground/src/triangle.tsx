/** Weights of three objectives as a point in a triangle, which is dragged or moved by the arrow keys. */

import type { Weights } from "./types";
import { colourOf, percent } from "./ui";

type Point = readonly [x: number, y: number];

const CORNERS: readonly Point[] = [
  [100, 14],
  [186, 163],
  [14, 163],
];
const STEPS: Record<string, Point> = {
  ArrowLeft: [-4, 0],
  ArrowRight: [4, 0],
  ArrowUp: [0, -4],
  ArrowDown: [0, 4],
};

/** Moving the point sets the weights of the three `corners`, and those of all others to 0. */
export function Triangle(props: { corners: string[]; value: Weights; onChange: (value: Weights) => void }) {
  const { corners, value, onChange } = props;
  const shares = readShares(corners.map((name) => value[name] ?? 0));
  const at = mix(shares);
  const move = (to: Point) => onChange(Object.fromEntries(corners.map((name, index) => [name, weigh(to)[index]!])));

  const drag = (event: PointerEvent) => {
    const svg = event.currentTarget as SVGSVGElement;
    if (event.type === "pointerdown") svg.setPointerCapture(event.pointerId);
    if (event.buttons !== 1) return;
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM()!.inverse());
    move([x, y]);
  };
  const step = (event: KeyboardEvent) => {
    const by = STEPS[event.key];
    if (!by) return;
    event.preventDefault();
    move([at[0] + by[0], at[1] + by[1]]);
  };
  return (
    <svg class="triangle" viewBox="-20 -4 240 190" onPointerDown={drag} onPointerMove={drag}>
      <polygon points={CORNERS.join(" ")} />
      {corners.map((name, index) => (
        <text
          key={name}
          x={CORNERS[index]![0]}
          y={CORNERS[index]![1] + (index ? 16 : -6)}
          fill={colourOf(name)}
          text-anchor="middle"
        >
          {name}
        </text>
      ))}
      <circle
        cx={at[0]}
        cy={at[1]}
        r="8"
        tabindex={0}
        role="slider"
        aria-label={`Weights of ${corners.join(", ")}; move by the arrow keys`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(100 * shares[0]!)}
        aria-valuetext={corners.map((name, index) => `${name} ${percent(shares[index]!)}`).join(", ")}
        onKeyDown={step}
      />
    </svg>
  );
}

function readShares(weights: number[]): number[] {
  const total = weights.reduce((sum, each) => sum + each, 0);
  return weights.map((each) => (total ? each / total : 1 / weights.length));
}

function mix(shares: number[]): Point {
  return [0, 1].map((axis) =>
    shares.reduce((sum, share, index) => sum + share * CORNERS[index]![axis]!, 0),
  ) as unknown as Point;
}

/** The barycentric weights of a point; of one that lies outside, those of a point on the border near it. */
function weigh([x, y]: Point): number[] {
  const [[ax, ay], [bx, by], [cx, cy]] = CORNERS as [Point, Point, Point];
  const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
  const first = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area;
  const second = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
  const inside = [first, second, 1 - first - second].map((each) => Math.max(0, each));
  return readShares(inside).map((each) => Math.round(1000 * each) / 1000);
}
