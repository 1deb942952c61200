/** Calls of the server. The key is asked for when a call is refused without one, and is kept in memory only. */

/** Why a call failed, in the server's words. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status = 0,
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

type AskKey = (why: string) => Promise<string>;

let key = "";
let askKey: AskKey = () => Promise.reject(new Refusal("a key is needed"));
let asking: Promise<void> | null = null;

/** Say how a key is asked for. It rejects when the person does not give one. */
export function setKeyAsker(ask: AskKey) {
  askKey = ask;
}

/** Call a route, and return its reply. Throws a `Refusal`, or an `AbortError` when `signal` is aborted. */
export async function call<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  return (await request(path, body, signal)).json();
}

/** Send a request; a body that is no form is sent as JSON. */
export async function request(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  for (;;) {
    const used = key;
    const response = await send(path, body, signal);
    if (response.ok) return response;
    const refusal = await readRefusal(response);
    if (refusal.status !== 401) throw refusal;
    if (used === key) await renewKey(refusal.message);
  }
}

/** Yield the events of a stream. Throws a `Refusal` when the stream ends before its end, or tells of an error. */
export async function* stream<T>(path: string, body: object, signal: AbortSignal): AsyncGenerator<T> {
  const response = await request(path, { ...body, stream: true }, signal);
  for await (const data of readEvents(response, signal)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Refusal(event.error.message, 0, event.error.param);
    yield event;
  }
  throw new Refusal("the server closed the stream before the answer was complete; ask again");
}

async function send(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const form = body instanceof FormData;
  if (body !== undefined && !form) headers["content-type"] = "application/json";
  const content = form ? body : body === undefined ? undefined : JSON.stringify(body);
  try {
    return await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body: content, signal });
  } catch (error) {
    throw lostConnection(error, signal);
  }
}

async function* readEvents(response: Response, signal: AbortSignal): AsyncGenerator<string> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop()!;
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
    }
  } catch (error) {
    throw lostConnection(error, signal);
  } finally {
    void reader.cancel().catch(() => {});
  }
}

function lostConnection(error: unknown, signal?: AbortSignal) {
  return signal?.aborted
    ? error
    : new Refusal("the server cannot be reached; see whether it still runs, then try again");
}

async function readRefusal(response: Response): Promise<Refusal> {
  const body = await response.json().catch(() => null);
  const error = body?.error ?? {};
  return new Refusal(error.message ?? `the server answered ${response.status}`, response.status, error.param ?? null);
}

/** Ask for a key, once for all calls that wait for it. */
function renewKey(why: string): Promise<void> {
  asking ??= askKey(why)
    .then((given) => void (key = given))
    .finally(() => (asking = null));
  return asking;
}
