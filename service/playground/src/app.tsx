/** The frame: the views and the way between them, the models of the server, and its key. */

import type { FunctionComponent } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, Refusal } from "./api";
import { KeyDialog } from "./keys";
import type { ModelCard } from "./types";
import { explain, Status } from "./ui";
import { Models } from "./views/models";
import { Score } from "./views/score";
import { Label } from "./views/label";
import { Sweep } from "./views/sweep";
import { Taste } from "./views/taste";

/** A view gets the models of the server, and whether it is the one that is shown. */
export type View = FunctionComponent<{ models: ModelCard[]; open: boolean }>;

const VIEWS: Record<string, View> = { Score, Taste, Sweep, Label, Models };
const RETRY = 2000; // milliseconds until a server that still loads is asked again

export function App() {
  const [view, setView] = useState(readView);
  const { models, failure, load } = useModels();
  useEffect(() => {
    const follow = () => setView(readView());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return (
    <>
      <header>
        <h1>Tureen</h1>
        <nav aria-label="Views">
          {Object.keys(VIEWS).map((name) => (
            <a key={name} href={`#${name.toLowerCase()}`} aria-current={name === view ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
      </header>
      <main>
        {models ? (
          Object.entries(VIEWS).map(([name, Content]) => (
            <section key={name} hidden={name !== view} aria-label={name}>
              <Content models={models} open={name === view} />
            </section>
          ))
        ) : (
          <>
            <Status busy={!failure} failure={failure} />
            {failure && (
              <button type="button" onClick={load}>
                Try again
              </button>
            )}
          </>
        )}
      </main>
      <KeyDialog />
    </>
  );
}

function readView(): string {
  const asked = location.hash.slice(1);
  return Object.keys(VIEWS).find((name) => name.toLowerCase() === asked) ?? Object.keys(VIEWS)[0]!;
}

/** The models of the server. A server that still loads them is asked again until it is ready. */
function useModels() {
  const [models, setModels] = useState<ModelCard[] | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const load = async () => {
    setFailure(null);
    try {
      setModels((await call<{ data: ModelCard[] }>("/v1/models")).data);
    } catch (error) {
      setFailure(explain(error));
      if (error instanceof Refusal && error.status === 503) setTimeout(load, RETRY);
    }
  };
  useEffect(() => void load(), []);
  return { models, failure, load };
}
