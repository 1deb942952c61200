/** A chart of Observable Plot that follows the width and the colours of the page. */

import { plot, type PlotOptions } from "@observablehq/plot";
import { useEffect, useRef, useState } from "preact/hooks";

/**
 * Draw a chart.
 *
 * `label` is what a screen reader says; the numbers must stand in the page as well. `onPick` is called with the index
 * of a mark of the class `pick` that is clicked.
 */
export function Chart(props: { label: string; options: PlotOptions; onPick?: (index: number) => void }) {
  const holder = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(Math.floor(entry!.contentRect.width)));
    watcher.observe(holder.current!);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => {
    if (!width) return;
    const drawn = plot({ ...props.options, width });
    drawn.querySelector("style")?.remove(); // the page's policy allows no inline styles; style.css has these
    drawn.setAttribute("aria-hidden", "true"); // the label of the whole says it
    drawn.querySelectorAll("[aria-label]").forEach((part) => part.removeAttribute("aria-label"));
    drawn.querySelectorAll(".pick > *").forEach((mark, index) => {
      mark.addEventListener("click", () => props.onPick?.(index));
    });
    holder.current!.replaceChildren(drawn);
  }, [props.options, width]);
  return <div class="chart" role="img" aria-label={props.label} ref={holder} />;
}
