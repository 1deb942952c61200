/** Batches: their progress, and how to stop one and save what it made. */

import { useEffect, useState } from "preact/hooks";
import { call, request } from "./api";
import { download, explain, Scroll } from "./ui";

interface Batch {
  id: string;
  endpoint: string;
  status: string;
  output_file_id: string | null;
  error_file_id: string | null;
  request_counts: { total: number; completed: number; failed: number };
}

const PERIOD = 3000; // milliseconds between two looks, while the view is open
const RUNNING = ["validating", "in_progress", "finalizing"];

export function Batches({ open }: { open: boolean }) {
  const [batches, setBatches] = useState<Batch[]>([]);
  const [failure, setFailure] = useState<string | null>(null);
  const look = async (signal?: AbortSignal) => {
    try {
      setBatches((await call<{ data: Batch[] }>("/v1/batches", undefined, signal)).data);
      setFailure(null);
    } catch (error) {
      if (!signal?.aborted) setFailure(explain(error));
    }
  };
  useEffect(() => {
    if (!open) return;
    const controller = new AbortController();
    void look(controller.signal);
    const timer = setInterval(() => void look(controller.signal), PERIOD);
    return () => {
      clearInterval(timer);
      controller.abort();
    };
  }, [open]);

  const attempt = (work: () => Promise<unknown>) =>
    work().then(
      () => look(),
      (error) => setFailure(explain(error)),
    );
  const cancel = (batch: Batch) => attempt(() => call(`/v1/batches/${batch.id}/cancel`, {}));
  const save = (file: string) =>
    attempt(async () => download(`${file}.jsonl`, await (await request(`/v1/files/${file}/content`)).text()));
  return (
    <>
      <h2>Batches</h2>
      {failure && <p class="note">{failure}</p>}
      {!failure && !batches.length && <p class="note">There are none.</p>}
      {batches.length > 0 && (
        <Scroll label="Batches">
          <table>
            <thead>
              <tr>
                <th>Batch</th>
                <th>Route</th>
                <th>State</th>
                <th>Lines</th>
                <th>Do</th>
              </tr>
            </thead>
            <tbody>
              {batches.map((batch) => (
                <tr key={batch.id}>
                  <td>{batch.id}</td>
                  <td>{batch.endpoint}</td>
                  <td>{batch.status}</td>
                  <td>
                    <Progress counts={batch.request_counts} />
                  </td>
                  <td>
                    <div class="row">
                      {RUNNING.includes(batch.status) && (
                        <button type="button" onClick={() => cancel(batch)}>
                          Cancel
                        </button>
                      )}
                      {batch.output_file_id && (
                        <button type="button" onClick={() => save(batch.output_file_id!)}>
                          Save results
                        </button>
                      )}
                      {batch.error_file_id && (
                        <button type="button" onClick={() => save(batch.error_file_id!)}>
                          Save errors
                        </button>
                      )}
                    </div>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </>
  );
}

function Progress({ counts }: { counts: Batch["request_counts"] }) {
  const { total, completed, failed } = counts;
  return (
    <>
      <progress aria-label="Finished lines" value={completed + failed} max={total || 1} /> {completed + failed} of{" "}
      {total}
      {failed > 0 && `, ${failed} failed`}
    </>
  );
}
