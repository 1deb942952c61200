/** The server's metrics, in Prometheus' text format. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export function parseMetrics(text: string): Sample[] {
  return text.split("\n").flatMap((line) => {
    const [, name, labels = "", value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (!name) return [];
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, given]) => [key!, given!]);
    return [{ name, labels: Object.fromEntries(pairs), value: value === "+Inf" ? Infinity : Number(value) }];
  });
}

/** The sum of the samples that have these labels; undefined if there is none. */
export function sumSamples(samples: Sample[], name: string, labels: Record<string, string> = {}): number | undefined {
  const found = samples.filter(
    (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  );
  return found.length ? found.reduce((sum, sample) => sum + sample.value, 0) : undefined;
}

/** Scores from `low` to `high`; the densities of all bins cover 1. */
export interface Bin {
  low: number;
  high: number;
  density: number;
}

/** The distribution of a reward's scores, in deviations; empty if nothing was scored. The ends are 1 wide. */
export function readHistogram(samples: Sample[], model: string): Bin[] {
  const buckets = samples.filter(({ name, labels }) => name === "tureen_score_bucket" && labels.model === model);
  const bounds = [...new Set(buckets.map(({ labels }) => labels.le!))];
  const counts = bounds.map((le) => sumSamples(buckets, "tureen_score_bucket", { le })!);
  const total = counts.at(-1) ?? 0;
  if (!total) return [];
  return bounds.map((bound, index) => {
    const before = Number(bounds[index - 1] ?? Number(bound) - 1);
    const high = bound === "+Inf" ? before + 1 : Number(bound);
    const share = (counts[index]! - (counts[index - 1] ?? 0)) / total;
    return { low: before, high, density: share / (high - before) };
  });
}

/** Wilson's 95 % interval of a share of `count`. */
export function wilson(share: number, count: number): [number, number] {
  const z = 1.96;
  const centre = (share + (z * z) / (2 * count)) / (1 + (z * z) / count);
  const half = (z * Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count))) / (1 + (z * z) / count);
  return [centre - half, centre + half];
}
