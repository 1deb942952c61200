/** Text of models and files, which may be hostile: it is shown as text, or as Markdown that was sanitized. */

import DOMPurify from "dompurify";
import { Marked } from "marked";
import { useLayoutEffect, useRef } from "preact/hooks";

// control characters but line breaks and tabs, and what turns the direction of a text around
const HIDDEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;
const TAGS = "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul".split(
  " ",
);

// HTML in a text is shown as it is written, and a picture as its description
const markdown = new Marked({
  async: false,
  breaks: true,
  renderer: { html: ({ text }) => escapeHtml(text), image: ({ text }) => escapeHtml(text) },
});

const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (each) => `&#${each.codePointAt(0)};`);

/** Show characters that have no shape of their own, as `⟨1B⟩`. */
export function showHidden(text: string): string {
  return text.replace(HIDDEN, (each) => `⟨${each.codePointAt(0)!.toString(16).toUpperCase().padStart(2, "0")}⟩`);
}

/** A text as it is. */
export function PlainText({ children }: { children: string }) {
  return (
    <div class="text" dir="auto">
      {showHidden(children)}
    </div>
  );
}

/** A text as Markdown. Only plain elements are left of it, and of their attributes only links to the web. */
export function Markdown({ children }: { children: string }) {
  const holder = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => holder.current!.replaceChildren(renderMarkdown(children)), [children]);
  return <div class="markdown" dir="auto" ref={holder} />;
}

function renderMarkdown(text: string): DocumentFragment {
  const html = markdown.parse(showHidden(text)) as string;
  const safe = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ["href"],
    ALLOWED_URI_REGEXP: /^https?:/i,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of safe.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  return safe;
}
