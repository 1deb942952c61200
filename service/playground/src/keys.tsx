/** Asks for a key when the server refuses a call without one. */

import { useEffect, useRef, useState } from "preact/hooks";
import { Refusal, setKeyAsker } from "./api";

interface Question {
  why: string;
  give: (key: string) => void;
  refuse: (refusal: Refusal) => void;
}

/** The dialog. It opens by itself. */
export function KeyDialog() {
  const [question, setQuestion] = useState<Question | null>(null);
  const dialog = useRef<HTMLDialogElement>(null);
  const field = useRef<HTMLInputElement>(null);

  useEffect(() => setKeyAsker((why) => new Promise((give, refuse) => setQuestion({ why, give, refuse }))), []);
  useEffect(() => {
    if (question) dialog.current!.showModal();
  }, [question]);

  const answer = (event: SubmitEvent) => {
    event.preventDefault();
    question!.give(field.current!.value.trim());
    close();
  };
  const close = () => {
    question?.refuse(new Refusal("this server needs a key", 401)); // nothing happens if it was given
    field.current!.value = "";
    setQuestion(null);
    dialog.current!.close();
  };
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={close}>
      <form onSubmit={answer}>
        <h2 id="key-title">This server needs a key</h2>
        <p role="alert">{question?.why}</p>
        <label>
          Key
          <input ref={field} type="password" autocomplete="off" required />
        </label>
        <p class="note">It is kept in the memory of this page only, and is gone when you close or reload it.</p>
        <div class="row">
          <button type="submit" class="primary">
            Use this key
          </button>
          <button type="button" onClick={close}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
