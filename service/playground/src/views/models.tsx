/** What is loaded, what it was measured to be, how its scores look now, and what the server does. */

import { useEffect, useState } from "preact/hooks";
import type { View } from "../app";
import { request } from "../api";
import { Batches } from "../batches";
import { parseMetrics, sumSamples, type Sample } from "../metrics";
import { PolicyCard, RewardCard } from "../model-cards";
import { explain } from "../ui";

const PERIOD = 5000; // milliseconds between two looks at the metrics, while this view is open

export const Models: View = ({ models, open }) => {
  const [samples, setSamples] = useState<Sample[]>([]);
  const [failure, setFailure] = useState<string | null>(null);
  useEffect(() => {
    if (!open) return;
    const controller = new AbortController();
    const look = async () => {
      try {
        setSamples(parseMetrics(await (await request("/metrics", undefined, controller.signal)).text()));
        setFailure(null);
      } catch (error) {
        if (!controller.signal.aborted) setFailure(explain(error));
      }
    };
    void look();
    const timer = setInterval(look, PERIOD);
    return () => {
      clearInterval(timer);
      controller.abort();
    };
  }, [open]);
  return (
    <>
      {failure ? <p class="note">No live figures: {failure}</p> : <Activity samples={samples} />}
      <h2>Rewards</h2>
      <div class="columns">
        {models
          .filter((each) => each.kind === "reward")
          .map((each) => (
            <RewardCard key={each.id} card={each} samples={samples} />
          ))}
      </div>
      <h2>Policies</h2>
      <div class="columns">
        {models
          .filter((each) => each.kind === "policy")
          .map((each) => (
            <PolicyCard key={each.id} card={each} />
          ))}
      </div>
      <Batches open={open} />
    </>
  );
};

const FIGURES = {
  "requests in flight": "tureen_http_requests_in_flight",
  "requests in queues": "tureen_queue_requests",
  "tokens in queues": "tureen_queue_tokens",
  "texts scored or written": "tureen_texts_total",
  "tokens computed": "tureen_tokens_total",
  "tokens saved by caches": "tureen_cached_tokens_total",
};

function Activity({ samples }: { samples: Sample[] }) {
  return (
    <dl class="figures">
      {Object.entries(FIGURES).map(([label, name]) => (
        <div key={name}>
          <dt>{label}</dt>
          <dd>{sumSamples(samples, name)?.toLocaleString() ?? "–"}</dd>
        </div>
      ))}
    </dl>
  );
}
