/** The card of a reward or a policy. */

import { lineY, rect, ruleY } from "@observablehq/plot";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { Chart } from "./chart";
import { readHistogram, sumSamples, wilson, type Bin, type Sample } from "./metrics";
import { describeWeights } from "./steering";
import type { ModelCard } from "./types";
import { percent, signed } from "./ui";

export function RewardCard({ card, samples }: { card: ModelCard; samples: Sample[] }) {
  const scale = card.calibration[card.id];
  const about = { model: card.id };
  const mean = sumSamples(samples, "tureen_score_recent_mean", about);
  const deviation = sumSamples(samples, "tureen_score_recent_deviation", about);
  const length = sumSamples(samples, "tureen_score_length_correlation", { ...about, within: "all" });
  const drift = sumSamples(samples, "tureen_score_population_stability", about);
  const bins = useMemo(() => readHistogram(samples, card.id), [samples, card.id]);
  return (
    <div class="card">
      <h3>{card.id}</h3>
      <Facts>
        {Object.entries(card.evaluation).map(([set, found]) => (
          <Evaluation key={set} set={set} found={found} />
        ))}
        <Fact name="Calibration">
          {scale
            ? `mean ${scale.mean.toFixed(2)}, deviation ${scale.std.toFixed(2)}, temperature ${scale.temperature.toFixed(2)}`
            : "none: scores are raw"}
        </Fact>
        <Fact name="Reads">
          {card.input}, at most {card.max_length} tokens
        </Fact>
        {mean !== undefined && (
          <Fact name="Lately">
            mean {signed(mean)}, deviation {deviation?.toFixed(2)} (calibrated: 0 and 1)
          </Fact>
        )}
        {drift !== undefined && <Fact name="Drift (PSI)">{drift.toFixed(3)}</Fact>}
        {length !== undefined && <Fact name="Length correlation, live">{signed(length)}</Fact>}
        <Origin card={card} />
      </Facts>
      {bins.length > 0 && <Histogram name={card.id} bins={bins} />}
    </div>
  );
}

/** What was measured on held-out pairs in training. */
function Evaluation({ set, found }: { set: string; found: Record<string, number> }) {
  const { accuracy, pairs, ece, mce, length_correlation: length } = found;
  return (
    <>
      {accuracy !== undefined && pairs !== undefined && (
        <Fact name={`Accuracy on ${set}`}>
          {percent(accuracy)} of {pairs} pairs ({wilson(accuracy, pairs).map(percent).join(" to ")})
        </Fact>
      )}
      {ece !== undefined && mce !== undefined && (
        <Fact name="Calibration error">
          mean {ece.toFixed(3)}, largest {mce.toFixed(3)}
        </Fact>
      )}
      {length !== undefined && <Fact name="Length correlation, held out">{signed(length)}</Fact>}
    </>
  );
}

export function PolicyCard({ card }: { card: ModelCard }) {
  return (
    <div class="card">
      <h3>{card.id}</h3>
      <Facts>
        <Fact name="Objectives">{card.objectives.join(", ") || "none"}</Fact>
        <Fact name="Steering">{card.steering.join(", ")}</Fact>
        {Object.entries(card.presets).map(([name, weights]) => (
          <Fact key={name} name={`Preset ${name}`}>
            {describeWeights(weights)}
          </Fact>
        ))}
        {card.max_length && <Fact name="Context">{card.max_length} tokens</Fact>}
        <Origin card={card} />
      </Facts>
    </div>
  );
}

function Origin({ card }: { card: ModelCard }) {
  return (
    <>
      {card.base && <Fact name="Base">{card.base}</Fact>}
      {card.licences.length > 0 && <Fact name="Data and licences">{card.licences.join("; ")}</Fact>}
      {card.version && <Fact name="Version">{card.version}</Fact>}
      <Fact name="Fingerprint">{card.fingerprint ?? "known when it is loaded"}</Fact>
      <Fact name="Runtime">
        {card.runtime}
        {!card.loaded && ", not loaded now"}
      </Fact>
    </>
  );
}

const Facts = ({ children }: { children: ComponentChildren }) => <dl class="facts">{children}</dl>;

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

// the density of the normal distribution that calibration makes of the training's scores
const NORMAL = Array.from({ length: 101 }, (_, index) => {
  const at = (index - 50) / 10;
  return { at, density: Math.exp((-at * at) / 2) / Math.sqrt(2 * Math.PI) };
});

/** The live scores against those of the calibration. */
function Histogram({ name, bins }: { name: string; bins: Bin[] }) {
  const options = useMemo(
    () => ({
      height: 140,
      x: { label: "score in deviations" },
      y: { axis: null },
      marks: [
        rect(bins, { x1: "low", x2: "high", y1: () => 0, y2: "density", fill: "var(--c0)", fillOpacity: 0.5 }),
        lineY(NORMAL, { x: "at", y: "density", stroke: "var(--c1)" }),
        ruleY([0]),
      ],
    }),
    [bins],
  );
  return (
    <>
      <Chart label={`The scores of ${name} now, against those of its calibration`} options={options} />
      <p class="note">Blue: scores since the start. Line: a normal distribution, as calibrated.</p>
    </>
  );
}
